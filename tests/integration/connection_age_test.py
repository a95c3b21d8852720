# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Connections that reach their age: clients move on, and streams end in order. And what answers tell
of the load, by which clients choose a server."""

import json
import random
import re
import subprocess
import time

import client
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc import StatusCode
from server_process import BIN, Server, eventually, refusal_to_start

AGE = 0.5  # Seconds.
GRACE = 1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    flags = ["--max-connection-age", f"{AGE}s", "--max-connection-age-grace", f"{GRACE}s",
             "--load-reports"]
    with Server(tmp_path_factory.mktemp("server"), ["identity"], flags=flags) as running:
        yield running


def answered_trailer(call):
    return int(dict(call.trailing_metadata())["millrace-answered"])


def is_notice(message):
    return message.infer_response.parameters["millrace_draining"].bool_param


def test_stream_ends_in_order_says_how_far_it_came_and_goes_on_over_another_connection(server):
    """A stock client, which knows nothing of it, and sends one request after the other."""
    number = 0
    for _ in range(3):
        begin, answered = time.monotonic(), 0
        stream = client.Stream(server.stub)
        while True:
            stream.send(client.numbered("identity", number))  # What was not answered, again.
            error = None
            try:
                assert stream.answer().infer_response.id == str(number)
            except Exception as ended:
                error = ended
                break
            answered, number = answered + 1, number + 1
        assert AGE <= time.monotonic() - begin < AGE * 1.3 + GRACE
        assert error.code() == StatusCode.UNAVAILABLE, error
        assert "age that connections may have, 500ms (--max-connection-age)" in error.details()
        assert answered > 0 and answered_trailer(stream.call) == answered
        stream.half_close()
    assert number > 0


def test_stream_that_asks_for_a_notice_gets_it_before_the_end(server):
    stream = client.Stream(server.stub, millrace_drain_notice="true")
    stream.send(client.numbered("identity", 0))
    assert stream.answer().infer_response.id == "0"
    notice = stream.answer()
    assert is_notice(notice) and not notice.error_message and not notice.infer_response.id
    stream.send(*(client.numbered("identity", number) for number in (1, 2)))  # Read all the same.
    assert client.ids(stream.rest()) == ["1", "2"]  # And the stream ends with OK.
    assert answered_trailer(stream.call) == 3


def test_client_that_ignores_the_notice_is_ended_all_the_same(server):
    stream = client.Stream(server.stub, millrace_drain_notice="true")
    assert is_notice(stream.answer())
    error = client.error_of(stream.answer)
    assert error.code() == StatusCode.UNAVAILABLE and "--max-connection-age" in error.details()
    assert answered_trailer(stream.call) == 0
    stream.half_close()


def test_stream_whose_requests_are_not_answered_ends_after_the_grace(server):
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(client.numbered("identity", 0), client.numbered("identity", 1))
        begin = time.monotonic()
        error = client.error_of(stream.answer)
        assert time.monotonic() - begin > AGE + GRACE
        assert error.code() == StatusCode.UNAVAILABLE
        assert "not answered within --max-connection-age-grace, 1s" in error.details()
        assert answered_trailer(stream.call) == 0
        stream.half_close()
    assert server.stub.ModelInfer(client.numbered("identity", 2)).id == "2"


def test_connection_goes_when_its_calls_have_ended_and_calls_go_on(server):
    with server.new_channel() as channel:
        stub = type(server.stub)(channel)
        deadline = time.monotonic() + 4 * AGE
        number = 0
        while time.monotonic() < deadline:  # Over several connections; no call notices.
            assert stub.ModelInfer(client.numbered("identity", number)).id == str(number)
            number += 1
    eventually(lambda: server.metric("millrace_streams") == 0)
    eventually(lambda: server.metric("millrace_connections") <= 1)  # server.stub's own, perhaps.


def test_client_library_goes_on_across_ages_each_request_answered_once_in_order(server, tmp_path):
    """`millrace map` is fed in bursts, so that some connections end busy and others idle."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    count = 400
    for number in range(count):
        np.save(tmp_path / f"{number}.npy", np.full(16, number, np.float32))
    streams = server.metric("millrace_streams_opened_total")
    run = server.metric("millrace_requests_total", model="identity", code="OK")
    with subprocess.Popen([BIN / "millrace", "map", "-", "-u", server.address, "--model",
                           "identity"], cwd=tmp_path, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as mapping:
        begin, number = time.monotonic(), 0
        while number < count:
            burst = chance.choice([1, 1, 2, 5, 30])
            lines = "".join(f"{each}.npy\n" for each in range(number, min(number + burst, count)))
            mapping.stdin.write(lines)
            mapping.stdin.flush()
            number += burst
            time.sleep(chance.uniform(0, 0.08))
        took = time.monotonic() - begin
        output, errors = mapping.communicate(timeout=60)
    assert mapping.returncode == 0, errors
    records = [json.loads(line) for line in output.splitlines()]
    assert [record["file"] for record in records] == [f"{each}.npy" for each in range(count)]
    for number, record in enumerate(records):
        [answer] = record["outputs"]
        assert np.ravel(answer["data"]).tolist() == [number] * 16
    moves = server.metric("millrace_streams_opened_total") - streams - 1
    assert moves >= max(1, int(took / (1.3 * AGE)) - 1), took
    # The notice has it stop in time: nothing was run twice.
    assert server.metric("millrace_requests_total", model="identity", code="OK") - run == count


def orca_load_report():
    """The message that balancers read, as xds/data/orca/v3/orca_load_report.proto has it."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="xds.data.orca.v3",
                                              syntax="proto3")
    report = file.message_type.add(name="OrcaLoadReport")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, number in (("cpu_utilization", 1), ("mem_utilization", 2), ("rps_fractional", 6),
                         ("eps", 7), ("application_utilization", 9)):
        report.field.add(name=name, number=number, type=kinds.TYPE_DOUBLE,
                         label=kinds.LABEL_OPTIONAL)
    entry = report.nested_type.add(name="NamedMetricsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    report.field.add(name="named_metrics", number=8, type=kinds.TYPE_MESSAGE,
                     label=kinds.LABEL_REPEATED,
                     type_name=".xds.data.orca.v3.OrcaLoadReport.NamedMetricsEntry")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("xds.data.orca.v3.OrcaLoadReport"))


def load_of(call):
    trailers = [value for key, value in call.trailing_metadata()
                if key == "endpoint-load-metrics-bin"]
    return [orca_load_report().FromString(value) for value in trailers]


def test_unary_answers_tell_the_load_of_their_model(server):
    request, begin, count = client.numbered("identity", 0), time.monotonic(), 0
    while time.monotonic() - begin < 1:
        _, call = server.stub.ModelInfer.with_call(request)
        count += 1
    [report] = load_of(call)
    assert 0 < report.application_utilization <= 1
    assert report.rps_fractional > 0.02 * count and report.eps >= 0
    assert report.named_metrics["in_flight_requests"] >= 0
    assert report.named_metrics["desired_replicas_ratio"] > 0
    request.inputs[0].shape[1] = 3  # An answer that is an error brings one, too.
    [report] = load_of(client.error_of(lambda: server.stub.ModelInfer(request)))
    assert report.rps_fractional > 0
    request.model_name = "unknown"
    assert load_of(client.error_of(lambda: server.stub.ModelInfer(request))) == []


def test_neither_is_on_where_no_flag_says_so(tmp_path):
    with Server(tmp_path, ["identity"]) as server:
        stream = client.Stream(server.stub)
        time.sleep(3 * AGE)
        stream.send(client.numbered("identity", 0))
        assert client.ids(stream.rest()) == ["0"]
        assert "millrace-answered" not in dict(stream.call.trailing_metadata() or ())
        _, call = server.stub.ModelInfer.with_call(client.numbered("identity", 0))
        assert load_of(call) == []


def test_shutdown_is_announced_to_whom_asks_for_it(tmp_path):
    with Server(tmp_path, ["identity"]) as server:
        stream = client.Stream(server.stub, millrace_drain_notice="true")
        stream.send(client.numbered("identity", 0))
        assert stream.answer().infer_response.id == "0"
        server.signal()
        assert is_notice(stream.answer())
        stream.send(client.numbered("identity", 1))
        assert client.ids(stream.rest()) == ["1"]
        assert answered_trailer(stream.call) == 2
        assert server.wait() == 0


def test_age_that_makes_no_sense_is_refused():
    said = refusal_to_start("--model-repository", "/tmp", "--max-connection-age", "10ms")
    assert re.search(r"--max-connection-age: expected 100ms or more, or 0s for never", said), said
