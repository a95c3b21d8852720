# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Replicas that are killed, that crash or hang, and models that raise: what clients see of it."""

import contextlib
import random
import re
import threading

import client
import pytest
import reference
import torch
from grpc import StatusCode
from server_process import Entry, Server, eventually

KILLS = 8
# In microseconds; and its first runs of a shape are exempt.
LIMITED = "millrace { supervision { execution_limit_microseconds: 1000000 } }\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    entries = ["identity", "tiny_mlp", "mlp_pt2", "raises", "slow",
               "crashes", Entry("slow", "hangs", config=LIMITED)]
    with Server(tmp_path_factory.mktemp("server"), entries) as running:
        yield running


class Load:
    """Streams and unary calls that go on until stopped; every answer is checked."""

    MODELS = ("identity", "tiny_mlp", "mlp_pt2")

    def __init__(self, server, streams=4):
        for model in self.MODELS:  # Made once, since making them isn't thread-safe.
            reference.outputs(model, reference.random_inputs(model))
        self.server = server
        self.stopping = threading.Event()
        self.answered = []
        self.wrong = []
        self.threads = [threading.Thread(target=self.guarded, args=(self.stream, number))
                        for number in range(streams)]
        self.threads.append(threading.Thread(target=self.guarded, args=(self.unary, 0)))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def guarded(self, run, number):
        try:
            self.answered.append(run(number))
        except BaseException as error:  # Asserted to be none, in the test's own thread.
            self.wrong.append(error)
            self.stopping.set()

    def request(self, number):
        model = self.MODELS[number % len(self.MODELS)]
        inputs = reference.random_inputs(model, number % 7 + 1, seed=number)
        return model, inputs, client.request(model, inputs, id=str(number))

    def stream(self, salt):
        stream = client.Stream(self.server.stub)
        sent, received = [], 0
        while not self.stopping.is_set():
            sent.append(self.request(1000 * salt + len(sent)))
            stream.send(sent[-1][2])
            if len(sent) - received == 16:
                self.check(stream.answer(), sent[received])
                received += 1
        for answer, expected in zip(stream.rest(), sent[received:], strict=True):
            self.check(answer, expected)
        return len(sent)

    def unary(self, _):
        count = 0
        while not self.stopping.is_set():
            model, inputs, message = self.request(count)
            client.assert_answers(self.server.stub.ModelInfer(message), model, inputs)
            count += 1
        return count

    @staticmethod
    def check(answer, expected):
        model, inputs, message = expected
        assert not answer.error_message, answer.error_message
        assert answer.infer_response.id == message.id
        client.assert_answers(answer.infer_response, model, inputs)


def test_killed_replicas_cost_no_request_and_no_order(server, seed):
    generator = random.Random(seed)
    with Load(server) as load:
        for _ in range(KILLS):
            done = server.metric("millrace_requests_total", code="OK")
            server.kill_a_replica(generator)
            eventually(lambda: load.wrong or
                       server.metric("millrace_requests_total", code="OK") > done + 20)
    assert load.wrong == []
    assert len(load.answered) == len(load.threads) and min(load.answered) > 0
    assert server.metric("millrace_replica_restarts_total") >= KILLS
    assert server.metric("millrace_in_flight_requests") == 0
    assert len(server.replicas()) == 14


def test_replica_that_is_killed_in_the_middle_of_a_batch_is_replaced_and_the_batch_run_again(
        server):
    inputs = reference.random_inputs("slow", 3, seed=1)
    before = set(server.replicas())
    with server.frozen_replicas() as frozen:
        stream = client.Stream(server.stub)
        stream.send(client.request("slow", inputs, id="a"))
        eventually(lambda: server.metric("millrace_busy_replicas", model="slow") == 1)
        restarts = server.metric("millrace_replica_restarts_total", model="slow")
        for pid in frozen:  # Whoever runs it is among them.
            server.signal_worker(pid)
        eventually(lambda: server.metric("millrace_replica_restarts_total",
                                         model="slow") == restarts + 2)
    client.assert_answers(stream.rest()[0].infer_response, "slow", inputs)
    eventually(lambda: server.metric("millrace_ready_replicas") == 14)
    assert not before & set(server.replicas())


def test_killed_templates_are_loaded_again_and_replicas_go_on(server):
    def templates():
        found = set()
        for pid in server.processes():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It has just gone.
                if b"template" in open(f"/proc/{pid}/comm", "rb").read():
                    found.add(pid)
        return found

    before = eventually(lambda: found if len(found := templates()) == 7 else None)
    for pid in before:
        server.signal_worker(pid)
    for model in ("identity", "mlp_pt2"):
        inputs = reference.random_inputs(model, 3)
        client.assert_answers(server.stub.ModelInfer(client.request(model, inputs)), model, inputs)
    eventually(lambda: len(templates() - before) == 7)
    server.kill_a_replica(random.Random(0))  # Its successor comes from a new template.


def test_request_that_crashes_replicas_is_given_up_and_its_neighbours_are_not(server):
    def request(crash, number):
        return client.request("crashes", {"crash": torch.tensor([[crash]], dtype=torch.int32)},
                              id=str(number))

    restarts = server.metric("millrace_replica_restarts_total", model="crashes")
    other = client.Stream(server.stub)
    other.send(*(client.numbered("identity", number) for number in range(200)))
    with server.frozen_replicas():  # So that they all are gathered in few batches.
        stream = client.Stream(server.stub)
        stream.send(*(request(int(number == 3), number) for number in range(8)))
        eventually(lambda: server.metric("millrace_in_flight_requests", model="crashes") == 8)
    answers = stream.rest()
    assert client.ids(answers) == [str(number) for number in range(8)]
    codes = [client.status_of(answer) for answer in answers]
    assert codes == [StatusCode.INTERNAL if number == 3 else StatusCode.OK for number in range(8)]
    assert "died" in answers[3].error_message and "3" in answers[3].error_message
    assert server.metric("millrace_replica_restarts_total", model="crashes") >= restarts + 3
    assert client.ids(other.rest()) == [str(number) for number in range(200)]
    # The model recovers.
    assert server.stub.ModelInfer(request(0, 9)).id == "9"
    eventually(lambda: server.metric("millrace_ready_replicas", model="crashes") == 2)


def test_what_is_given_up_names_an_incident_that_the_log_explains(server):
    def crash(value):
        return client.error_of(lambda: server.stub.ModelInfer(client.request(
            "crashes", {"crash": torch.tensor([[value]], dtype=torch.int32)})))

    first = crash(7)
    assert first.code() == StatusCode.INTERNAL
    incident = re.search(r"was killed by signal \d+ \(.+\) \(incident ([0-9a-f]{8})\)$",
                         first.details())
    assert incident, first.details()
    eventually(lambda: server.logged(rf"model 'crashes' .*incident {incident[1]}"))
    restarts = server.metric("millrace_replica_restarts_total", model="crashes")
    again = crash(7)  # The payload is known, so it costs one replica.
    assert "of the same payload before" in again.details()
    eventually(lambda: server.metric("millrace_ready_replicas", model="crashes") == 2)
    assert server.metric("millrace_replica_restarts_total", model="crashes") == restarts + 1


def test_request_that_hangs_replicas_is_given_up_and_its_neighbours_are_not(server):
    def request(loops, number):
        return client.request("hangs", {"loops": torch.tensor([[loops]], dtype=torch.int32)},
                              id=str(number), as_model="slow")

    for number in range(2):
        server.stub.ModelInfer(request(1, number))
    restarts = server.metric("millrace_replica_restarts_total", model="hangs")
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(*(request(2**31 - 1 if number == 2 else 1, number) for number in range(4)))
        eventually(lambda: server.metric("millrace_in_flight_requests", model="hangs") == 4)
    answers = stream.rest()
    assert client.ids(answers) == [str(number) for number in range(4)]
    codes = [client.status_of(answer) for answer in answers]
    assert codes == [StatusCode.INTERNAL if number == 2 else StatusCode.OK for number in range(4)]
    assert "hung" in answers[2].error_message
    assert server.metric("millrace_replica_restarts_total", model="hangs") >= restarts + 3
    eventually(lambda: server.metric("millrace_ready_replicas", model="hangs") == 2)


def test_row_that_raises_doesnt_spoil_the_batch_it_is_in(server):
    negative = {"INPUT__0": -torch.ones(1, 4)}
    with server.frozen_replicas():  # So that they all are gathered in few batches.
        stream = client.Stream(server.stub)
        sent = [negative if number in (5, 11) else reference.random_inputs("raises", seed=number)
                for number in range(24)]
        stream.send(*(client.request("raises", inputs, id=str(number))
                      for number, inputs in enumerate(sent)))
        eventually(lambda: server.metric("millrace_in_flight_requests", model="raises") == 24)
    answers = stream.rest()
    assert client.ids(answers) == [str(number) for number in range(24)]
    for number, answer in enumerate(answers):
        if number in (5, 11):
            assert client.status_of(answer) == StatusCode.INTERNAL
            assert "negative input" in answer.error_message
        else:
            client.assert_answers(answer.infer_response, "raises", sent[number])
    batches = server.metric("millrace_batch_rows_count", model="raises")
    assert 0 < batches < 24, "no batch of several rows was run, so nothing was shown"
