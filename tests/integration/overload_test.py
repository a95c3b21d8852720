# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""More work than there are replicas: refusals, deadlines, and cores that several models share."""

import collections
import time

import client
import pytest
import torch
from grpc import StatusCode
from server_process import Entry, Server, eventually

QUEUE = 3  # Of `short`, which runs one row, stages one, and queues these.
TAKEN = QUEUE + 2
# Of `limited`, whose queue takes longer than that, and one batch much less.
LIMIT = 1.0
LIMITED = "millrace { supervision { execution_limit_microseconds: 1000000 } }\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    entries = [Entry("identity", "short", max_batch_size=1, max_queue_size=QUEUE, replicas=1),
               Entry("slow", "limited", max_batch_size=1, max_queue_size=60, replicas=1,
                     config=LIMITED), "identity"]
    with Server(tmp_path_factory.mktemp("server"), entries) as running:
        yield running


def send(server, number, model="short", **more):
    call_settings = {key: more.pop(key) for key in ("timeout",) if key in more}
    return server.stub.ModelInfer.future(
        client.numbered(model, number, as_model="identity", **more), **call_settings)


def in_flight(server, model="short"):
    return server.metric("millrace_in_flight_requests", model=model)


def occupy(server):
    """Gives the frozen replica of `short` a request to run; the call ends when it is thawed."""
    running = send(server, 0)
    eventually(lambda: server.metric("millrace_busy_replicas", model="short") == 1)
    return running


def test_full_queue_refuses_unary_calls_and_says_when_to_retry(server):
    refused = server.metric("millrace_rejections_total", model="short", reason="queue_full")
    with server.frozen_replicas():
        calls = [send(server, number) for number in range(TAKEN)]
        eventually(lambda: in_flight(server) == TAKEN)
        for number in range(20):
            error = client.error_of(send(server, number).result)
            assert error.code() == StatusCode.RESOURCE_EXHAUSTED
            assert "Exceeds maximum queue size" in error.details()
            assert f"{QUEUE}" in error.details() and "short" in error.details()
            assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        assert in_flight(server) == TAKEN
    assert [call.result().id for call in calls] == [str(number) for number in range(TAKEN)]
    assert server.metric("millrace_rejections_total", model="short",
                         reason="queue_full") == refused + 20


def test_full_queue_leaves_the_server_ready_and_alive(server):
    """Also where requests wait for longer than a batch may run."""
    loops = {"loops": torch.tensor([[60]], dtype=torch.int32)}
    message = client.request("limited", loops, as_model="slow")
    stream = client.Stream(server.stub, millrace_window=64)
    stream.send(*[message] * 400)
    # One runs, one is staged, the queue is full, and the next one keeps the stream from reading.
    eventually(lambda: in_flight(server, "limited") >= 62)
    seen, late = collections.Counter(), 0

    def asked_often_enough():
        nonlocal late
        oldest = server.metric("millrace_queue_oldest_age_seconds", model="limited")
        late += oldest > 1.2 * LIMIT
        seen[server.http_get("/readyz")[0], server.http_get("/livez")[0]] += 1
        return late >= 20

    eventually(asked_often_enough)
    stream.cancel()
    assert set(seen) == {(200, 200)}
    assert server.metric("millrace_replica_restarts_total", model="limited") == 0


def test_default_queue_holds_at_least_128_rows(server):
    assert server.metric("millrace_queue_limit_rows", model="identity") == 4 * 32 * 2


def test_deadline_that_passes_in_the_queue_is_answered_then(server):
    """Not when a replica frees: here none does until the end."""
    with server.frozen_replicas():
        running = occupy(server)
        staged, queued = (send(server, number, parameters={"timeout": 200_000})
                          for number in (1, 2))
        stream = client.Stream(server.stub)
        stream.send(client.numbered("short", 3, as_model="identity",
                                    parameters={"timeout": 200_000}))
        for call in (staged, queued):
            error = client.error_of(call.result)
            assert error.code() == StatusCode.DEADLINE_EXCEEDED
            assert "Request timeout expired" in error.details()
        answer = stream.answer()
        assert client.status_of(answer) == StatusCode.DEADLINE_EXCEEDED
        assert "Request timeout expired" in answer.error_message
        assert answer.infer_response.id == "3"
        assert in_flight(server) == 1
    assert running.result().id == "0"
    assert stream.rest() == []


def test_expired_answer_keeps_its_place_in_its_stream(server):
    expired = server.metric("millrace_rejections_total", reason="deadline")
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(client.numbered("short", 0, as_model="identity"),
                    client.numbered("short", 1, as_model="identity",
                                    parameters={"timeout": 100_000}),
                    client.numbered("short", 2, as_model="identity"))
        eventually(lambda: server.metric("millrace_rejections_total", reason="deadline") > expired
                   and in_flight(server) == 2)
    answers = stream.rest()
    assert client.ids(answers) == ["0", "1", "2"]
    assert [client.status_of(answer) for answer in answers] == [
        StatusCode.OK, StatusCode.DEADLINE_EXCEEDED, StatusCode.OK]


def test_deadline_of_a_call_frees_its_place(server):
    with server.frozen_replicas():
        running = occupy(server)
        calls = [send(server, number, timeout=0.3) for number in range(1, TAKEN)]
        assert {client.error_of(call.result).code() for call in calls} == {
            StatusCode.DEADLINE_EXCEEDED}
        eventually(lambda: in_flight(server) == 1)
        again = [send(server, number) for number in range(1, TAKEN)]
        eventually(lambda: in_flight(server) == TAKEN)
    assert [call.result().id for call in [running, *again]] == [str(n) for n in range(TAKEN)]


def test_cancelled_call_frees_its_place(server):
    with server.frozen_replicas():
        running = occupy(server)
        calls = [send(server, number) for number in range(1, TAKEN)]
        eventually(lambda: in_flight(server) == TAKEN)
        for call in calls:
            call.cancel()
        eventually(lambda: in_flight(server) == 1)
        again = [send(server, number) for number in range(1, TAKEN)]
        eventually(lambda: in_flight(server) == TAKEN)
    assert [call.result().id for call in [running, *again]] == [str(n) for n in range(TAKEN)]


def test_queue_that_is_refilled_without_end_refuses_but_never_loses(server):
    outcomes = []
    for _ in range(10):
        calls = [send(server, number) for number in range(30)]
        for number, call in enumerate(calls):
            code = call.code()
            assert code in (StatusCode.OK, StatusCode.RESOURCE_EXHAUSTED), call.details()
            if code == StatusCode.OK:
                assert call.result().id == str(number)
            outcomes.append(code)
    found = collections.Counter(outcomes)
    assert sum(found.values()) == 300 and found[StatusCode.OK] >= 10
    assert in_flight(server) == 0


def test_models_share_the_cores(tmp_path):
    """Two models with two replicas each on two cores: never more than two batches run."""
    with Server(tmp_path, [Entry("identity", "a", max_batch_size=1),
                           Entry("identity", "b", max_batch_size=1)]) as server:
        slots = max(1, int(server.metric("millrace_cpu_budget_cores")))
        assert slots <= 2

        def busy():
            metrics = server.metrics()
            return {model: metrics[f'millrace_busy_replicas{{model="{model}",version="1"}}']
                    for model in "ab"}

        def settled():
            before = busy()
            time.sleep(0.05)
            return before if before == busy() else None

        total, per_stream, seen = 0, 400, []
        streams = [client.Stream(server.stub) for _ in range(4)]
        for number, stream in enumerate(streams):
            stream.send(*(client.numbered("ab"[number % 2], i, as_model="identity")
                          for i in range(per_stream)))
        for _ in range(10):  # While it is frozen, what runs can be counted without a race.
            with server.frozen_replicas() as pids:
                assert len(pids) == 4
                running = sum(eventually(settled).values())
                assert running <= slots
                seen.append(running)
            time.sleep(0.02)
        assert max(seen) == slots
        for stream in streams:
            answers = stream.rest()
            assert client.ids(answers) == [str(i) for i in range(per_stream)]
            total += len(answers)
        assert total == 4 * per_stream
        # Both got their turns.
        assert all(server.metric("millrace_requests_total", model=model, code="OK") ==
                   2 * per_stream for model in "ab")
