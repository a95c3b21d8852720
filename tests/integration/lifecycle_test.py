# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Models that are loaded, swapped and unloaded while the server runs: by calls, and by what changes
in the repository."""

import contextlib
import json
import os
import pathlib
import shutil
import threading
import time

import client
import pytest
import reference
import torch
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from memory_group import MemoryGroup
from server_process import MODELS, Server, comm_of, eventually
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

EXPLICIT = ["--model-control", "explicit"]
WATCH = ["--model-control", "watch", "--watch-settle", "300ms"]
STEP = 100  # What each version of `release` adds more than the one before.


# ---- Repositories that change ----

class Repository:
    """A model repository on disk, in which a test deploys versions as people do."""

    def __init__(self, folder):
        self.path = folder / "repository"
        self.path.mkdir()
        self._aside = folder / "aside"
        self._aside.mkdir()

    def put(self, name, version, *, model="release", source=1, config=None):
        """Deploys version `source` of a test model as `version`: aside, then by one rename. The
        config is written where there is none yet, or where one is given."""
        file = MODELS / "lifecycle" / model / str(source) / "model.pt"
        folder = self.path / name
        if not folder.exists():
            folder = self._aside / name
            (folder / str(version)).mkdir(parents=True)
            shutil.copy(file, folder / str(version))
            self.configure(name, config or config_of(model), folder)
            folder.rename(self.path / name)
            return
        if config:
            self.configure(name, config)
        whole = self._aside / "version"
        whole.mkdir()
        shutil.copy(file, whole)
        old = folder / str(version)
        if old.exists():
            old.rename(self._aside / "old")
        whole.rename(old)
        shutil.rmtree(self._aside / "old", ignore_errors=True)

    def configure(self, name, config, folder=None):
        folder = folder or self.path / name
        (folder / "config.pbtxt.new").write_text(config)
        (folder / "config.pbtxt.new").rename(folder / "config.pbtxt")


def config_of(model, replicas=1, more=""):
    spec = reference.model(model)
    tensors = "".join(f'{kind} [ {{ name: "{t.name}" data_type: TYPE_FP32 dims: [ 4 ] }} ]\n'
                      for kind, ts in (("input", spec.inputs), ("output", spec.outputs))
                      for t in ts)
    return (f"max_batch_size: 8\n{tensors}"
            f"instance_group [ {{ kind: KIND_CPU count: {replicas} }} ]\n{more}")


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def start(tmp_path, repository, *flags, prefix=()):
    return Server(tmp_path, repositories=[repository.path], flags=flags, prefix=prefix)


def answer(server, number=7, name="m", version=""):
    """What a model adds to its input, and the version that the answer names."""
    response = server.stub.ModelInfer(
        client.numbered(name, number, as_model="release", version=version))
    return float(client.outputs_of(response)["OUTPUT__0"][0, 0]) - number, response.model_version


def index(server):
    """The index by model and version."""
    reply = server.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
    return {(model.name, model.version): model for model in reply.models}


def state(server, name="m", version="1"):
    entry = index(server).get((name, version))
    return entry.state if entry else "GONE"


def load(server, name, **parameters):
    request = service_pb2.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        request.parameters[key].string_param = value
    return server.operator.RepositoryModelLoad(request)


def unload(server, name):
    return server.operator.RepositoryModelUnload(
        service_pb2.RepositoryModelUnloadRequest(model_name=name))


# ---- Calls ----

def test_tritonclient_loads_and_unloads(tmp_path, repository):
    repository.put("m", 1)
    repository.put("other", 1, source=2)
    with start(tmp_path, repository, *EXPLICIT) as server:
        stock = triton.InferenceServerClient(server.operator_address)
        assert not stock.is_model_ready("m") and server.processes() == [server.pid]
        assert "not loaded" in index(server)["m", ""].reason
        stock.load_model("m")
        assert stock.is_model_ready("m") and answer(server) == (STEP, "1")
        assert state(server, "other", "") == "UNAVAILABLE"
        assert stock.get_model_repository_index(as_json=True)["models"][0]["state"] == "READY"
        stock.unload_model("m")
        assert not stock.is_model_ready("m")
        eventually(lambda: state(server) == "UNAVAILABLE")
        assert index(server)["m", "1"].reason == "unloaded"
        assert client.error_of(lambda: answer(server)).code() == StatusCode.UNAVAILABLE
        assert server.processes() == [server.pid]
        with pytest.raises(InferenceServerException, match="nobody"):
            stock.load_model("nobody")
        with pytest.raises(InferenceServerException, match="nobody"):
            stock.unload_model("nobody")


def test_models_that_are_named_are_loaded_at_start(tmp_path, repository):
    for name in ("a", "b", "c"):
        repository.put(name, 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "a", "--load-model", "c",
               "--load-model", "missing") as server:
        assert [name for (name, _), entry in index(server).items()
                if entry.state == "READY"] == ["a", "c"]
        assert server.logged("'missing'.*no repository has it")


def test_star_loads_all_at_start(tmp_path, repository):
    for name in ("a", "b"):
        repository.put(name, 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        assert {entry.state for entry in index(server).values()} == {"READY"}


def test_load_takes_what_is_new_on_disk_and_reloads_what_is_loaded(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        repository.put("later", 1, source=3)
        load(server, "later")
        assert answer(server, name="later") == (3 * STEP, "1")
        repository.put("m", 1, source=2)
        assert answer(server) == (STEP, "1")  # Until it is told.
        load(server, "m")
        assert answer(server) == (2 * STEP, "1")
        repository.put("m", 2, source=3)
        load(server, "m")
        assert answer(server) == (3 * STEP, "2")
        eventually(lambda: ("m", "1") not in index(server))
        assert client.error_of(lambda: answer(server, version="1")).code() == StatusCode.NOT_FOUND


def test_config_of_a_load_takes_the_place_of_the_files(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        stock = triton.InferenceServerClient(server.operator_address)
        config = stock.get_model_config("m", as_json=True)["config"]
        assert config["max_batch_size"] == 8
        stock.load_model("m", config=json.dumps({**config, "max_batch_size": 2}))
        assert stock.get_model_config("m").config.max_batch_size == 2
        stock.load_model("m")
        assert stock.get_model_config("m").config.max_batch_size == 8


@pytest.mark.parametrize("parameters, named", [
    ({"config": "no json"}, "config"), ({"config": '{"max_batch_sizes": 1}'}, "max_batch_sizes"),
    ({"config": '{"max_batch_size": 1}'}, "input"), ({"file:1/model.pt": "x"}, "file:1/model.pt"),
    ({"guess": "x"}, "guess")])
def test_load_with_wrong_parameters_changes_nothing(tmp_path_factory, parameters, named):
    server = explicit_server(tmp_path_factory)
    error = client.error_of(lambda: load(server, "m", **parameters))
    assert error.code() == StatusCode.INVALID_ARGUMENT and named in error.details()
    assert answer(server) == (STEP, "1") and not index(server)["m", "1"].reason


def explicit_server(tmp_path_factory, started=[]):
    """One server for the tests that change nothing."""
    if not started:
        folder = tmp_path_factory.mktemp("explicit")
        repository = Repository(folder)
        repository.put("m", 1)
        started.append(Server(folder, repositories=[repository.path],
                              flags=[*EXPLICIT, "--load-model", "*"]))
    return started[0]


@pytest.mark.parametrize("flags", [[], WATCH])
def test_calls_are_refused_where_models_are_controlled_otherwise(tmp_path, repository, flags):
    repository.put("m", 1)
    with start(tmp_path, repository, *flags) as server:
        for call in (load, unload):
            error = client.error_of(lambda call=call: call(server, "m"))
            assert error.code() == StatusCode.FAILED_PRECONDITION
            assert "--model-control" in error.details()
        assert answer(server) == (STEP, "1")


def test_load_doesnt_hold_up_other_calls(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--io-threads", "1") as server:
        going_on = server.operator.RepositoryModelLoad.future(
            service_pb2.RepositoryModelLoadRequest(model_name="m"))
        assert eventually(lambda: state(server) == "LOADING" or going_on.done())
        assert not going_on.done()
        going_on.result()
        assert state(server) == "READY"


def test_stopped_server_answers_loads_that_go_on(tmp_path, repository):
    repository.put("m", 1)
    server = start(tmp_path, repository, *EXPLICIT)
    going_on = server.operator.RepositoryModelLoad.future(
        service_pb2.RepositoryModelLoadRequest(model_name="m"))
    eventually(lambda: state(server) == "LOADING")
    server.stop()
    assert client.error_of(going_on.result).code() == StatusCode.UNAVAILABLE


def test_health_follows_loads_and_unloads(tmp_path, repository):
    repository.put("m", 1)
    serving = health_pb2.HealthCheckResponse
    with start(tmp_path, repository, *EXPLICIT) as server:
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(
            health_pb2.HealthCheckRequest(service="m"))
        seen = [next(watch).status]
        load(server, "m")
        seen.append(next(watch).status)
        unload(server, "m")
        seen.append(next(watch).status)
        watch.cancel()
    assert seen == [serving.NOT_SERVING, serving.SERVING, serving.NOT_SERVING]


# ---- Bad versions ----

@pytest.mark.parametrize("how, reason", [
    ("crash", "signal"), ("half", "TorchScript"), ("config", "config.pbtxt"), ("outputs", "FP64")])
def test_version_that_cant_be_served_leaves_the_old_one_serving(tmp_path, repository, how, reason):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        processes = len(server.processes())
        if how == "crash":
            repository.put("m", 2, model="crashes_always")
        elif how == "half":
            repository.put("m", 2, source=2)
            os.truncate(repository.path / "m" / "2" / "model.pt", 1 << 20)
        elif how == "config":
            repository.configure("m", "max_batch_size: many")
        else:
            repository.configure("m", config_of("release").replace(
                'output [ { name: "OUTPUT__0" data_type: TYPE_FP32',
                'output [ { name: "OUTPUT__0" data_type: TYPE_FP64'))
        error = client.error_of(lambda: load(server, "m"))
        assert reason in error.details()
        assert answer(server) == (STEP, "1") and state(server) == "READY"
        assert any(reason in entry.reason for entry in index(server).values())
        assert [line for line in server.log if reason in line and " E " in line]
        eventually(lambda: len(server.processes()) == processes)


@pytest.mark.parametrize("wrong, reason", [
    ("output [ { name: \"OUTPUT__0\" data_type: TYPE_FP64 dims: [ -1 ] } ]", "FP64"),
    ("output [ { name: \"OUTPUT__0\" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]", "[-1,-1,-1]"),
    ("output [ { name: \"a\" data_type: TYPE_FP32 dims: [ -1 ] },"
     "         { name: \"b\" data_type: TYPE_FP32 dims: [ -1 ] } ]", "2 outputs")])
def test_outputs_are_compared_with_the_config_also_where_dims_are_open(
        tmp_path, repository, wrong, reason):
    shutil.copytree(MODELS / "good" / "dynamic" / "1", repository.path / "m" / "1")
    (repository.path / "m" / "config.pbtxt").write_text(
        "max_batch_size: 8 input [ { name: \"INPUT__0\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
        + wrong)
    with start(tmp_path, repository) as server:
        assert state(server) == "UNAVAILABLE" and reason in index(server)["m", "1"].reason


# ---- Rows that may not share a batch ----

def three_rows(server):
    """What `centred` answers to three different rows in one request."""
    inputs = {"INPUT__0": torch.arange(12, dtype=torch.float32).reshape(3, 4)}
    request = client.request("m", inputs, as_model="centred", parameters={"millrace_timings": True})
    response = server.stub.ModelInfer(request)
    return client.outputs_of(response)["OUTPUT__0"]


def test_model_that_isnt_batch_invariant_runs_one_row_at_a_time_and_says_so(tmp_path, repository):
    repository.put("m", 1, model="centred")
    with start(tmp_path, repository) as server:
        entry = index(server)["m", "1"]
        assert entry.state == "READY" and "one row at a time" in entry.reason
        assert "OUTPUT__0" in entry.reason
        assert three_rows(server).abs().max() == 0  # Each row's mean is the row itself.
        assert server.metric("millrace_batch_rows_count", model="m") == 3


def test_model_that_isnt_batch_invariant_is_refused_where_the_config_says_so(tmp_path, repository):
    repository.put("m", 1, model="centred", config=config_of(
        "centred", more="millrace { batching { check: REFUSE_MODEL } }\n"))
    with start(tmp_path, repository) as server:
        assert state(server) == "UNAVAILABLE"
        assert "other results in a batch" in index(server)["m", "1"].reason


def test_model_that_isnt_to_be_checked_is_batched(tmp_path, repository):
    repository.put("m", 1, model="centred", config=config_of(
        "centred", more="millrace { batching { check: UNCHECKED } }\n"))
    with start(tmp_path, repository) as server:
        assert not index(server)["m", "1"].reason
        assert three_rows(server)[0].tolist() == [-4] * 4


def test_model_that_is_never_twice_the_same_cant_be_judged_and_is_batched(tmp_path, repository):
    repository.put("m", 1, model="noisy")
    with start(tmp_path, repository) as server:
        assert state(server) == "READY" and not index(server)["m", "1"].reason
        assert server.logged("inconclusive.*each time")


class CentredWhereWide(torch.nn.Module):
    """Looks at the other rows where they are of more than four columns."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True) if x.shape[1] > 4 else x


class RanksRows(torch.nn.Module):
    """Tells in integers how many rows of the batch are greater."""

    def forward(self, x):
        sums = x.sum(1)
        return (sums.unsqueeze(0) > sums.unsqueeze(1)).sum(1, keepdim=True)


def put_script(repository, module, config):
    folder = repository.path / "m" / "1"
    folder.mkdir(parents=True)
    torch.jit.script(module).save(str(folder / "model.pt"))
    repository.configure("m", config)


def test_declared_samples_show_that_a_model_isnt_batch_invariant(tmp_path, repository):
    samples = "".join(f"""\
model_warmup [ {{ name: "{width}" batch_size: 1 inputs {{
  key: "INPUT__0" value {{ data_type: TYPE_FP32 dims: [ {width} ] random_data: true }} }} }} ]
""" for width in (4, 8))
    put_script(repository, CentredWhereWide(), config_of("centred", more=samples).replace(
        "dims: [ 4 ] } ]", "dims: [ -1 ] } ]"))
    with start(tmp_path, repository) as server:
        entry = index(server)["m", "1"]
        assert entry.state == "READY" and "one row at a time" in entry.reason, entry


def test_integers_that_differ_in_a_batch_are_told_and_judged_by_nobody(tmp_path, repository):
    put_script(repository, RanksRows(), """\
max_batch_size: 8
input [ { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUTPUT__0" data_type: TYPE_INT64 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
""")
    with start(tmp_path, repository) as server:
        assert state(server) == "READY" and not index(server)["m", "1"].reason
        assert server.logged("inconclusive.*integers differ")


# ---- Memory ----

def test_swap_for_which_there_is_no_memory(tmp_path, repository):
    repository.put("m", 1)  # 32 MB of weights, and a version of a few bytes takes its place.
    group = MemoryGroup()
    if group.why_not:
        pytest.skip(group.why_not)
    server = start(tmp_path, repository, *EXPLICIT, "--load-model", "*", prefix=group.prefix())
    needed = sum(own_memory(pid) for pid in server.processes() if pid != server.pid)
    repository.put("m", 2, model="noisy")
    group.leave(needed - (8 << 20))
    error = client.error_of(lambda: load(server, "m"))
    assert error.code() == StatusCode.RESOURCE_EXHAUSTED
    assert "MiB" in error.details() and "IN_PLACE_IF_NEEDED" in error.details()
    assert answer(server) == (STEP, "1")
    repository.configure("m", config_of(
        "release", more="millrace { lifecycle { swap: IN_PLACE_IF_NEEDED } }\n"))
    load(server, "m")
    assert state(server, version="2") == "READY" and ("m", "1") not in index(server)
    assert server.logged("that one ends first")
    server.stop()
    group.remove()


def own_memory(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines()
                           if line.startswith("Pss_Anon:")))


# ---- Watching ----

def test_watched_repository_is_followed(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *WATCH) as server:
        assert answer(server) == (STEP, "1")
        repository.put("m", 2, source=2)
        eventually(lambda: answer(server) == (2 * STEP, "2"))
        repository.configure("m", config_of("release", more=(
            "version_policy { all { } }\n")))
        eventually(lambda: state(server, version="1") == "READY")
        assert answer(server, version="1") == (STEP, "1")
        assert answer(server) == (2 * STEP, "2")
        repository.put("m", 1, source=3)
        eventually(lambda: answer(server, version="1") == (3 * STEP, "1"))
        repository.put("n", 5, source=1)
        eventually(lambda: state(server, "n", "5") == "READY")
        (repository.path / "m").rename(tmp_path / "gone")
        eventually(lambda: not [name for name, _ in index(server) if name == "m"])
        assert client.error_of(lambda: answer(server)).code() == StatusCode.NOT_FOUND
        assert answer(server, name="n") == (STEP, "5")
        assert len(server.processes()) == 3


def test_model_that_is_copied_slowly_is_loaded_when_it_is_whole(tmp_path, repository):
    repository.put("m", 1)
    whole = (MODELS / "lifecycle" / "release" / "2" / "model.pt").read_bytes()
    with start(tmp_path, repository, *WATCH) as server:
        folder = repository.path / "m" / "2"
        folder.mkdir()
        with open(folder / "model.pt", "wb", buffering=0) as file:
            for begin in range(0, len(whole), len(whole) // 8):
                file.write(whole[begin:begin + len(whole) // 8])
                time.sleep(0.1)
                assert answer(server) == (STEP, "1")
        eventually(lambda: answer(server) == (2 * STEP, "2"))


def test_half_copied_model_is_tried_again_when_it_is_whole(tmp_path, repository):
    repository.put("m", 1)
    whole = (MODELS / "lifecycle" / "release" / "2" / "model.pt").read_bytes()
    with start(tmp_path, repository, *WATCH) as server:
        folder = repository.path / "m" / "2"
        folder.mkdir()
        (folder / "model.pt").write_bytes(whole[:len(whole) // 2])
        eventually(lambda: state(server, version="2") == "UNAVAILABLE")
        eventually(lambda: "TorchScript" in index(server)["m", "2"].reason)
        assert answer(server) == (STEP, "1")
        (folder / "model.pt").write_bytes(whole)
        eventually(lambda: answer(server) == (2 * STEP, "2"))


def test_swapped_link_is_followed_as_kubernetes_swaps_it(tmp_path, repository):
    for number in (1, 2):
        volume = repository.path / f"..{number}" / "m"
        shutil.copytree(MODELS / "lifecycle" / "release" / str(number), volume / "1")
        (volume / "config.pbtxt").write_text(config_of("release"))
    (repository.path / "..data").symlink_to("..1")
    (repository.path / "m").symlink_to("..data/m")
    with start(tmp_path, repository, *WATCH) as server:
        assert answer(server) == (STEP, "1")
        (repository.path / "..new").symlink_to("..2")
        (repository.path / "..new").rename(repository.path / "..data")
        eventually(lambda: answer(server) == (2 * STEP, "1"))


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
