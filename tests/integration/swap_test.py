# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Versions that take over from others while the server serves them."""

import contextlib
import os
import pathlib
import threading
import time

import client
import pytest
from changing_repository import EXPLICIT, STEP, Repository, answer, load, start, state
from grpc import StatusCode
from server_process import comm_of, eventually
from tritonclient.grpc import service_pb2


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


# ---- Swaps under load ----

class Load:
    """Streams and unary callers that send at a steady rate, and note every answer: what came, when,
    and how long it took."""

    def __init__(self, server, *, streams, callers, rate, name="m"):
        self.server, self.name = server, name
        self.period = (streams + callers) / rate
        self.ended = threading.Event()
        self.answers = []  # (time, seconds it took, what the model added)
        self.wrong = []
        self.sent = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._guarded, args=(run,))
                         for run, count in ((self._stream, streams), (self._caller, callers))
                         for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, run):
        try:
            run()
        except BaseException as error:  # The test asserts that there is none.
            self.wrong.append(error)

    def _ticks(self):
        """Numbers, one per period; what was missed is made up for."""
        begin, number = time.monotonic(), 0
        while not self.ended.is_set():
            number += 1
            yield number
            time.sleep(max(0, begin + number * self.period - time.monotonic()))

    def _note(self, sent, response, number):
        now = time.monotonic()
        assert response.id == str(number), f"{response.id} instead of {number}"
        added = float(client.outputs_of(response)["OUTPUT__0"][0, 0]) - number
        assert added in (STEP, 2 * STEP, 3 * STEP), added
        with self._lock:
            self.answers.append((now, now - sent, added))

    def _stream(self):
        stream = client.Stream(self.server.stub)
        times = {}

        def read():
            for number, each in enumerate(stream.call, 1):
                assert not each.error_message, each.error_message
                self._note(times.pop(number), each.infer_response, number)

        reader = threading.Thread(target=self._guarded, args=(read,))
        reader.start()
        for number in self._ticks():
            times[number] = time.monotonic()
            stream.send(client.numbered(self.name, number, as_model="release"))
        stream.half_close()
        reader.join()
        assert not times, f"{len(times)} requests have no answer"
        with self._lock:
            self.sent += number

    def _caller(self):
        for number in self._ticks():
            sent = time.monotonic()
            self._note(sent, self.server.stub.ModelInfer(
                client.numbered(self.name, number, as_model="release")), number)
        with self._lock:
            self.sent += number

    def percentile(self, begin, end, fraction=0.99):
        took = sorted(seconds for when, seconds, _ in self.answers if begin <= when < end)
        return took[min(len(took) - 1, int(fraction * len(took)))]

    def wait_for(self, seconds):
        """Lets it go on for a while; fails at once where something went wrong."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.wrong:
            time.sleep(0.01)
        assert not self.wrong, self.wrong[0]


def resident(server):
    """Bytes of memory of a server's processes, shared ones counted once."""
    total = 0
    for pid in server.processes():
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += 1024 * sum(int(line.split()[1]) for line in text.splitlines()
                                if line.startswith("Pss:"))
    return total


def measured_capacity(server):
    """Requests per second that one caller after the other gets."""
    answer(server)
    begin = time.monotonic()
    for _ in range(30):
        answer(server)
    return 30 / (time.monotonic() - begin)


def test_swap_under_load_loses_nothing_and_keeps_the_order(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        rate = 0.8 * measured_capacity(server)
        before = resident(server)
        with Load(server, streams=3, callers=2, rate=rate) as going_on:
            going_on.wait_for(4)
            quiet = time.monotonic()
            swaps = []
            for version in (2, 3):
                repository.put("m", version, source=version)
                swaps.append([time.monotonic()])
                load(server, "m")
                swaps[-1].append(time.monotonic())
                going_on.wait_for(2)
        assert going_on.wrong == []
        assert len(going_on.answers) == going_on.sent
        added = [value for _, _, value in sorted(going_on.answers)]
        assert set(added) == {STEP, 2 * STEP, 3 * STEP}
        eventually(lambda: len(server.processes()) == 3)
        after = resident(server)
        usual = going_on.percentile(0, quiet)
        during = min(going_on.percentile(begin, end) for begin, end in swaps)
        print(f"{len(added)} requests at {rate:.0f}/s; p99 {1e3 * usual:.1f} ms, during a swap "
              f"{1e3 * during:.1f} ms ({during / usual:.2f} times), loads took "
              f"{', '.join(f'{end - begin:.1f} s' for begin, end in swaps)}; memory "
              f"{before >> 20} MB before, {after >> 20} MB after")
        assert during < 5 * usual + 0.1  # The machine is shared; what is aimed at is 1.5.
        assert after < before + (24 << 20)  # The weights are 32 MB.


def test_load_beside_what_serves_gets_the_cores_that_are_left(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        old = server.processes()
        assert {os.sched_getscheduler(pid) for pid in old} == {os.SCHED_OTHER}
        going_on = server.operator.RepositoryModelLoad.future(
            service_pb2.RepositoryModelLoadRequest(model_name="m"))
        while_loading = set()
        while not going_on.done():
            for pid in set(server.processes()) - set(old):
                with contextlib.suppress(ProcessLookupError):
                    while_loading.add(os.sched_getscheduler(pid))
        assert os.SCHED_IDLE in while_loading
        eventually(lambda: len(server.processes()) == 3)
        assert {os.sched_getscheduler(pid) for pid in server.processes()} == {os.SCHED_OTHER}


def test_requests_that_the_old_version_accepted_are_answered_by_it(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        stream = client.Stream(server.stub, millrace_window=16)
        with server.frozen_replicas():
            stream.send(*(client.numbered("m", number, as_model="release")
                          for number in range(12)))
            eventually(lambda: server.metric("millrace_in_flight_requests", model="m") == 12)
            repository.put("m", 2, source=2)
            load(server, "m")
            assert answer(server) == (2 * STEP, "2")
            stream.send(client.numbered("m", 12, as_model="release"))
            assert state(server, version="1") == "UNLOADING"
        answers = stream.rest()
        assert client.ids(answers) == [str(number) for number in range(13)]
        assert [each.infer_response.model_version for each in answers] == ["1"] * 12 + ["2"]
        eventually(lambda: len(server.processes()) == 3)


def test_old_version_that_cant_answer_any_more_doesnt_keep_its_requests(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        stream = client.Stream(server.stub)
        with server.frozen_replicas() as replicas:
            stream.send(client.numbered("m", 0, as_model="release"))
            eventually(lambda: server.metric("millrace_in_flight_requests", model="m") == 1)
            os.truncate(repository.path / "m" / "1" / "model.pt", 0)  # No template comes after it.
            workers = {pid: comm_of(pid) for pid in server.processes() if pid != server.pid}
            server.signal_worker(next(pid for pid in workers if pid not in replicas))
            eventually(lambda: server.logged("template process was killed"))
            server.signal_worker(replicas[0])
        eventually(lambda: state(server) == "UNAVAILABLE")
        repository.put("m", 2, source=2)
        load(server, "m")
        assert answer(server) == (2 * STEP, "2")
        assert client.status_of(stream.answer()) == StatusCode.UNAVAILABLE
        stream.send(client.numbered("m", 1, as_model="release"))
        assert stream.answer().infer_response.model_version == "2"
        eventually(lambda: len(server.processes()) == 3)


def test_stream_that_stays_open_keeps_no_old_version_alive(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        stream = client.Stream(server.stub)
        for number in range(3):
            stream.send(client.numbered("m", number, as_model="release"))
            assert stream.answer().infer_response.id == str(number)
            load(server, "m")
            eventually(lambda: len(server.processes()) == 3)
        assert stream.rest() == []


def test_many_swaps_leave_nothing_behind(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:

        def left():
            eventually(lambda: len(server.processes()) == 3)
            maps = pathlib.Path(f"/proc/{server.pid}/maps").read_text()
            return (len(os.listdir(f"/proc/{server.pid}/fd")), maps.count("memfd:millrace"),
                    len(os.listdir(f"/proc/{server.pid}/task")))

        load(server, "m")
        answer(server)
        time.sleep(0.5)  # What has just ended closes its files.
        first = left()
        for _ in range(6):
            load(server, "m")
            answer(server)
        eventually(lambda: left() == first, f"{left()} instead of {first}")
        requests = server.metric("millrace_requests_total", model="m", code="OK")
        assert requests == 7  # The counters go on from load to load.


def test_several_models_are_swapped_at_once(tmp_path, repository):
    names = ["a", "b", "c"]
    for name in names:
        repository.put(name, 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        for name in names:
            repository.put(name, 2, source=2)
        begin = time.monotonic()
        loads = [server.operator.RepositoryModelLoad.future(
            service_pb2.RepositoryModelLoadRequest(model_name=name)) for name in names]
        for going_on in loads:
            going_on.result()
        print(f"three swaps took {time.monotonic() - begin:.1f} s")
        assert [answer(server, name=name) for name in names] == [(2 * STEP, "2")] * 3
