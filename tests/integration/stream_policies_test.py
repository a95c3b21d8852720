# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What a stream may ask for by its metadata, the bounds on its memory, and what a call is told that
is refused."""

import time

import client
import pytest
import torch
from google.protobuf import any_pb2, duration_pb2
from grpc import StatusCode
from server_process import Entry, Server, eventually

IN_FLIGHT = "millrace_server_in_flight_requests"
RECEIVED = "millrace_received_requests_total"
HELD = "millrace_stream_held_bytes"
BATCHES = "millrace_batch_rows_count"
MEGABYTE = 1 << 20
MAX_STREAM_BYTES = 4 * MEGABYTE
FEWEST_DROPPABLE = 64  # Answers of a stream that drops, decided and not yet written.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    entries = ["identity", "slow", "dynamic",
               Entry("identity", "single", max_batch_size=1, max_queue_size=1, replicas=1)]
    with Server(tmp_path_factory.mktemp("server"), entries,
                flags=["--max-stream-bytes", MAX_STREAM_BYTES]) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(server):
    yield
    for name in ("millrace_streams", IN_FLIGHT, "millrace_in_flight_requests", HELD):
        eventually(lambda n=name: server.metric(n) == 0, f"{name} = {server.metric(name)}")


def received(server):
    return server.metric(RECEIVED, rpc="ModelStreamInfer")


def settled(server, before):
    """How many requests of streams were read since, once no more are."""
    count = -1
    while count != (now := received(server) - before):
        count = now
        time.sleep(0.3)
    return count


def numbers(count, model="identity", first=0):
    return [client.numbered(model, number, as_model="identity")
            for number in range(first, first + count)]


EXPIRING = client.numbered("single", 1, as_model="identity", parameters={"timeout": 500_000})


def sized(number, nbytes):
    """A request of `dynamic` with that many bytes of payload."""
    return client.request("dynamic", {"INPUT__0": torch.ones(1, nbytes // 4)}, id=str(number))


def slow(number, loops):
    return client.request("slow", {"loops": torch.tensor([[loops]], dtype=torch.int32)},
                          id=str(number))


# ---- Metadata ----

@pytest.mark.parametrize("key, value, expected", [
    ("millrace-window", "0", "a number from 1 to 256"),
    ("millrace-weight", "101", "a number from 1 to 100"),
    ("millrace-weight", "heavy", "a number from 1 to 100"),
    ("millrace-overflow", "newest", "block, reject, drop-oldest or latest"),
    ("millrace-order", "any", "request or completion"),
    ("millrace-max-age", "0", "a number of microseconds from 1 on"),
])
def test_metadata_that_makes_no_sense_ends_the_stream_and_is_named(server, key, value, expected):
    call = server.stub.ModelStreamInfer(iter(numbers(1)), metadata=[(key, value)])
    error = client.error_of(lambda: next(call))
    assert error.code() == StatusCode.INVALID_ARGUMENT
    assert f"'{key}' is '{value}', expected {expected}" in error.details()


def test_metadata_that_comes_twice_is_refused(server):
    call = server.stub.ModelStreamInfer(
        iter(numbers(1)), metadata=[("millrace-order", "request"), ("millrace-order", "request")])
    error = client.error_of(lambda: next(call))
    assert error.code() == StatusCode.INVALID_ARGUMENT
    assert "'millrace-order' came 2 times" in error.details()


@pytest.mark.parametrize("terms", [
    {"millrace_weight": 100}, {"millrace_overflow": "block"}, {"millrace_overflow": "reject"},
    {"millrace_overflow": "drop-oldest", "millrace_window": 40},
    {"millrace_overflow": "latest", "millrace_max_age": 60_000_000},
    {"millrace_order": "completion"}, {"millrace_order": "request", "millrace_window": 3},
])
def test_stream_of_any_terms_has_one_answer_for_each_request(server, terms):
    stream = client.Stream(server.stub, **terms)
    stream.send(*numbers(40))
    answers = stream.rest()
    if terms.get("millrace_order") == "completion":
        answers.sort(key=lambda answer: int(answer.infer_response.id))
    assert client.ids(answers) == [str(number) for number in range(40)]
    for number, answer in enumerate(answers):
        if client.status_of(answer) == StatusCode.OK:
            assert (client.outputs_of(answer.infer_response)["OUTPUT__0"] == number).all()
        else:
            assert client.status_of(answer) in (StatusCode.ABORTED, StatusCode.RESOURCE_EXHAUSTED)
            assert "millrace_overflow" in terms


# ---- Order ----

def test_answers_leave_as_they_complete_where_the_stream_says_so(server):
    stream = client.Stream(server.stub, millrace_order="completion")
    stream.send(slow(0, loops=500), *numbers(20, first=1))
    first = stream.answers(20)
    assert sorted(map(int, client.ids(first))) == list(range(1, 21))
    last, = stream.rest()
    assert last.infer_response.id == "0"


def test_answers_wait_for_a_slow_one_before_them_otherwise(server):
    stream = client.Stream(server.stub)
    stream.send(slow(0, loops=300), *numbers(20, first=1))
    assert client.ids(stream.rest()) == [str(number) for number in range(21)]


def test_errors_leave_at_once_in_completion_order(server):
    with server.frozen_replicas():
        stream = client.Stream(server.stub, millrace_order="completion")
        stream.send(*numbers(3), client.numbered("nowhere", 3, as_model="identity"))
        answer = stream.answer()
        assert answer.infer_response.id == "3"
        assert client.status_of(answer) == StatusCode.NOT_FOUND
    assert sorted(client.ids(stream.rest())) == ["0", "1", "2"]


# ---- The first error ends the stream ----

@pytest.mark.parametrize("code, overflow, sent", [
    # Answered by the stream itself, by the queue's timer, and by the queue as the last one enters.
    (StatusCode.NOT_FOUND, "block", [*numbers(2, "single", first=1), *numbers(1, "nowhere")]),
    (StatusCode.DEADLINE_EXCEEDED, "block", [EXPIRING, *numbers(2, "single", first=2)]),
    (StatusCode.ABORTED, "latest", numbers(2, "single", first=1)),
])
def test_stream_that_ends_on_an_error_drops_what_waits(server, code, overflow, sent):
    """`single` runs one row, stages one and queues one; the next is parked."""
    before, ran = received(server), server.metric(BATCHES, model="single")
    with server.frozen_replicas():
        stream = client.Stream(server.stub, triton_grpc_error="true",
                               millrace_order="completion", millrace_overflow=overflow)
        stream.send(*numbers(1, "single"))
        eventually(lambda: server.metric("millrace_busy_replicas", model="single") == 1)
        stream.send(*sent)
        assert client.error_of(stream.answer).code() == code
        assert received(server) - before == 1 + len(sent)
        assert server.metric("millrace_in_flight_requests", model="single") == 1
        assert server.metric("millrace_parked_requests", model="single") == 0
        stream.half_close()
    eventually(lambda: server.metric("millrace_in_flight_requests", model="single") == 0)
    assert server.metric(BATCHES, model="single") == ran + 1


# ---- The window ----

def test_stream_that_rejects_is_not_slowed_but_keeps_its_window(server):
    """`single` runs one row, stages one and queues one."""
    before = received(server)
    with server.frozen_replicas():
        stream = client.Stream(server.stub, millrace_overflow="reject", millrace_window=10)
        stream.send(*numbers(25, "single"))
        assert settled(server, before) == 10
    answers = stream.rest()
    assert client.ids(answers) == [str(number) for number in range(25)]
    statuses = [client.status_of(answer) for answer in answers]
    assert set(statuses) <= {StatusCode.OK, StatusCode.RESOURCE_EXHAUSTED}
    assert statuses[:10].count(StatusCode.RESOURCE_EXHAUSTED) == 7


@pytest.mark.parametrize("overflow", ["drop-oldest", "latest"])
def test_stream_that_drops_is_read_beyond_its_window(server, overflow):
    before = received(server)
    with server.frozen_replicas():
        stream = client.Stream(server.stub, millrace_overflow=overflow, millrace_window=2)
        stream.send(*numbers(60))
        assert settled(server, before) == 60
    assert client.ids(stream.rest()) == [str(number) for number in range(60)]


@pytest.mark.parametrize("overflow", ["drop-oldest", "latest"])
def test_unwritten_answers_of_a_stream_that_drops_are_bounded(server, overflow):
    before = received(server)
    with server.frozen_replicas():
        stream = client.Stream(server.stub, millrace_overflow=overflow, millrace_window=2)
        stream.send(*numbers(200, "single"))
        undecided = 1 + 1 + 2  # At most: one runs, one is staged, and those that may wait.
        assert FEWEST_DROPPABLE <= settled(server, before) <= FEWEST_DROPPABLE + undecided
    answers = stream.rest()
    assert client.ids(answers) == [str(number) for number in range(200)]
    assert client.status_of(answers[0]) == StatusCode.OK


# ---- Bytes ----

def test_undecided_requests_of_a_stream_hold_bounded_bytes(server):
    before = received(server)
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(*(sized(number, MEGABYTE) for number in range(20)))
        assert settled(server, before) == 4
        assert MAX_STREAM_BYTES <= server.metric(HELD) < MAX_STREAM_BYTES + MEGABYTE
    assert client.ids(stream.rest()) == [str(number) for number in range(20)]


def test_single_request_passes_whatever_its_size(server):
    before = received(server)
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(*(sized(number, 3 * MAX_STREAM_BYTES) for number in range(3)))
        assert settled(server, before) == 1
    assert client.ids(stream.rest()) == ["0", "1", "2"]


def test_answers_that_are_not_read_hold_bounded_bytes(server):
    count, window = 60, 40
    stream = client.Stream(server.stub, millrace_window=window)
    stream.send(*(sized(number, MEGABYTE) for number in range(count)))
    eventually(lambda: server.metric(HELD) >= MAX_STREAM_BYTES)
    time.sleep(0.5)
    # Undecided requests may hold as much, and one message of each kind comes on top.
    assert server.metric(HELD) <= 2 * MAX_STREAM_BYTES + 3 * MEGABYTE
    assert client.ids(stream.rest()) == [str(number) for number in range(count)]


def test_quota_of_all_connections_ends_streams_and_the_server_goes_on(tmp_path):
    with Server(tmp_path, ["dynamic"], flags=["--grpc-memory-bytes", 24 * MEGABYTE]) as small:
        with small.frozen_replicas():
            streams = [client.Stream(small.stub) for _ in range(3)]
            for stream in streams:
                stream.send(*(sized(number, MEGABYTE) for number in range(30)))
            eventually(lambda: not all(stream.call.is_active() for stream in streams))
        ended = next(stream for stream in streams if not stream.call.is_active())
        # Or, where the whole connection was closed, what gRPC makes of that.
        assert ended.call.code() in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE)
        for stream in streams:
            stream.cancel()
        eventually(lambda: small.metric("millrace_streams") == 0)
        stream = client.Stream(small.stub)
        stream.send(*(sized(number, MEGABYTE) for number in range(5)))
        assert client.ids(stream.rest()) == [str(number) for number in range(5)]


# ---- What a refused call is told ----

def retry_delay_of(error):
    """Seconds in the google.rpc.RetryInfo of a failed call's google.rpc.Status."""
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = fields_of(details)
    assert status[1] == error.code().value[0]
    assert status[2].decode() == error.details()
    detail = any_pb2.Any.FromString(status[3])
    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo"
    return duration_pb2.Duration.FromString(fields_of(detail.value)[1]).ToTimedelta().total_seconds()


def fields_of(message):
    """The varint and length-delimited fields of a protobuf message, by number."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        assert kind in (0, 2)
        value = varint()
        if kind == 2:
            value, at = message[at:at + value], at + value
        fields[number] = value
    return fields


def test_refused_unary_call_is_told_when_to_retry_in_both_forms(server):
    with server.frozen_replicas():
        calls = [server.stub.ModelInfer.future(request) for request in numbers(3, "single")]
        eventually(lambda: server.metric("millrace_in_flight_requests", model="single") == 3)
        error = client.error_of(lambda: server.stub.ModelInfer(numbers(1, "single")[0]))
        assert error.code() == StatusCode.RESOURCE_EXHAUSTED
        pushback = int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])
        assert pushback > 0
        assert abs(retry_delay_of(error) * 1000 - pushback) <= 1
    assert [call.result().id for call in calls] == ["0", "1", "2"]


def test_call_that_fails_for_another_reason_is_not_told_to_retry(server):
    error = client.error_of(
        lambda: server.stub.ModelInfer(client.numbered("nowhere", 0, as_model="identity")))
    assert error.code() == StatusCode.NOT_FOUND
    assert not {"grpc-retry-pushback-ms", "grpc-status-details-bin"} & set(
        dict(error.trailing_metadata() or ()))
