# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""How a server ends: in order, at once, and by SIGKILL."""

import signal
import threading
import time

import client
import grpc
import pytest
import reference
from grpc import StatusCode
from server_process import CALL_SECONDS, Server, comm_of, eventually

WITHIN = 20  # Times looser than promised.


@pytest.fixture
def server(tmp_path):
    running = Server(tmp_path, ["identity", "slow"])
    yield running
    if running.process.poll() is None:
        running.kill()


def answered_trailer(call):
    return int(dict(call.trailing_metadata())["millrace-answered"])


class EndlessStream(threading.Thread):
    """Sends as fast as the window lets it, and counts the answers until the server ends it."""

    def __init__(self, stub):
        super().__init__()
        self.stub = stub
        self.sent = self.received = 0
        self.in_order = True
        self.error = None
        self.call = None

    def requests(self):
        while self.error is None:
            yield client.numbered("identity", self.sent)
            self.sent += 1

    def run(self):
        self.call = self.stub.ModelStreamInfer(self.requests(), timeout=CALL_SECONDS)
        try:
            for answer in self.call:
                self.in_order &= answer.infer_response.id == str(self.received)
                self.in_order &= not answer.error_message
                self.received += 1
        except grpc.RpcError as error:
            self.error = error


def endless_streams(server, count):
    """Streams on channels of their own, all of which have had answers."""
    streams = [EndlessStream(server.stub) for _ in range(count)]
    for stream in streams:
        stream.start()
    eventually(lambda: min(stream.received for stream in streams) > 20)
    return streams


def test_sigterm_under_load_answers_what_was_read_and_says_how_much_that_was(server):
    streams = endless_streams(server, 4)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    for stream in streams:
        stream.join()
        assert stream.in_order
        assert stream.error.code() == StatusCode.UNAVAILABLE
        assert "shutting down" in stream.error.details()
        assert answered_trailer(stream.call) == stream.received
    assert server.processes() == []


def test_sigterm_waits_for_what_runs_and_waits(server):
    """Streams and unary calls that the replicas still owe when the signal comes."""
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(*(client.numbered("identity", number) for number in range(10)))
        closed = client.Stream(server.stub)
        closed.send(*(client.numbered("identity", number) for number in range(5)))
        closed.half_close()
        unary = [server.stub.ModelInfer.future(client.numbered("identity", number))
                 for number in range(10)]
        eventually(lambda: server.metric("millrace_server_in_flight_requests") == 25)
        server.signal(signal.SIGINT)
        eventually(lambda: server.logged("answering what was read"))
        time.sleep(0.2)
        assert server.process.poll() is None
    assert client.ids(stream.answers(10)) == [str(number) for number in range(10)]
    assert client.error_of(stream.answer).code() == StatusCode.UNAVAILABLE
    assert answered_trailer(stream.call) == 10
    assert client.ids(closed.rest()) == [str(number) for number in range(5)]
    assert [call.result().id for call in unary] == [str(number) for number in range(10)]
    assert server.wait() == 0
    stream.half_close()


def test_replicas_and_their_template_are_replaced_while_the_server_drains(server):
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(*(client.numbered("identity", number) for number in range(10)))
        eventually(lambda: server.metric("millrace_server_in_flight_requests") == 10)
        server.signal()
        eventually(lambda: server.logged("answering what was read"))
        templates = [pid for pid in server.processes() if comm_of(pid) == "template"]
        for pid in templates:
            server.signal_worker(pid)
        eventually(lambda: len(server.logged("its template process")) == len(templates) == 2)
        for pid in server.replicas():
            server.signal_worker(pid)
    assert client.ids(stream.answers(10)) == [str(number) for number in range(10)]
    assert client.error_of(stream.answer).code() == StatusCode.UNAVAILABLE
    assert answered_trailer(stream.call) == 10
    assert server.wait() == 0
    stream.half_close()


def test_idle_streams_end_and_say_so(server):
    idle = client.Stream(server.stub)
    idle.send(client.numbered("identity", 0))
    idle.answer()
    unused = client.Stream(server.stub)
    eventually(lambda: server.metric("millrace_streams") == 2)
    server.signal()
    for stream, answered in ((idle, 1), (unused, 0)):
        assert client.error_of(stream.answer).code() == StatusCode.UNAVAILABLE
        assert answered_trailer(stream.call) == answered
        stream.half_close()
    assert server.wait() == 0


def test_what_is_not_answered_in_time_is_cancelled(tmp_path):
    server = Server(tmp_path, ["identity"], flags=["--drain-timeout", "1s"])
    with server.frozen_replicas():
        call = server.stub.ModelInfer.future(client.numbered("identity", 0))
        eventually(lambda: server.metric("millrace_server_in_flight_requests") == 1)
        server.signal()
        assert client.error_of(call.result).code() in (StatusCode.UNAVAILABLE,
                                                       StatusCode.CANCELLED)
        assert server.wait() == 1
    eventually(lambda: server.processes() == [], seconds=WITHIN)


def test_serving_goes_on_during_the_drain_delay(tmp_path):
    server = Server(tmp_path, ["identity"], flags=["--drain-delay", "3s"])
    assert server.http_get("/readyz")[0] == 200
    stream = client.Stream(server.stub)
    server.signal()
    eventually(lambda: server.http_get("/readyz")[0] == 503)
    assert "shutting down" in server.http_get("/readyz")[1]
    assert server.http_get("/livez")[0] == 200
    assert server.stub.ModelInfer(client.numbered("identity", 1)).id == "1"
    stream.send(client.numbered("identity", 2))
    assert stream.answer().infer_response.id == "2"
    assert server.wait() == 0
    stream.half_close()


def test_second_signal_ends_it_at_once(server):
    with server.frozen_replicas():
        call = server.stub.ModelInfer.future(client.numbered("identity", 0))
        eventually(lambda: server.metric("millrace_server_in_flight_requests") == 1)
        server.signal()
        eventually(lambda: server.logged("answering what was read"))
        server.signal()
        assert server.wait() != 0
    assert client.error_of(call.result).code() == StatusCode.UNAVAILABLE
    eventually(lambda: server.processes() == [], seconds=WITHIN)


def test_sigkill_of_the_server_leaves_no_process(server):
    """Also not the replicas that are busy with a forward of minutes."""
    loops = reference.random_inputs("slow")["loops"].fill_(100_000)
    calls = [server.stub.ModelInfer.future(client.request("slow", {"loops": loops}))
             for _ in range(2)]
    eventually(lambda: server.metric("millrace_busy_replicas", model="slow") >= 1)
    workers = server.processes()
    assert len(workers) == 7  # The server, two templates, four replicas.
    server.signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    eventually(lambda: server.processes() == [], seconds=WITHIN)
    assert {client.error_of(call.result).code() for call in calls} == {StatusCode.UNAVAILABLE}
