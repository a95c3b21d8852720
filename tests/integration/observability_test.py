# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What a server under load shows: metrics that promtool accepts, demand that an autoscaler can use,
streams by their names, traces and the access log."""

import collections
import json
import os
import re
import subprocess
import threading
import time

import client
import grpc
import pytest
from server_process import ROOT, TEST_WORKER, Entry, Server, eventually

PROMTOOL = os.environ.get("MILLRACE_PROMTOOL", ROOT / ".cache" / "tools" / "promtool")
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
RECORDED = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
NOT_RECORDED = f"00-{TRACE_ID}-00f067aa0ba902b7-00"
PER_SECOND = 20  # What the model "frame" can do: 50 ms each, one at a time.


def frame(number=0):
    return client.numbered("frame", number, as_model="delay_frame")


def identity(number=0, **more):
    return client.numbered("identity", number, **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    entries = ["identity", Entry("delay_frame", "frame", replicas=1, max_queue_size=8)]
    with Server(folder, entries, flags=[
            "--worker", TEST_WORKER, "--triton-metrics", "--stream-names", 2,
            "--access-log", 1, "--log-format", "json"], awaits='"ready"') as running:
        yield running


class Load:
    """Sends unary requests at a rate, whatever becomes of them, until the block ends."""

    def __init__(self, server, message, per_second):
        self._send = server.stub.ModelInfer.future
        self._message, self._interval = message, 1 / per_second
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _run(self):
        calls, due = collections.deque(maxlen=1000), time.monotonic()
        while not self._ended.is_set():
            calls.append(self._send(self._message))
            due += self._interval
            time.sleep(max(0, due - time.monotonic()))
        for call in calls:
            call.exception()


def lines(server, message):
    """What the JSON log says with that message."""
    found = []
    for line in list(server.log):
        if f'"message":"{message}"' in line:
            found.append(json.loads(line))
    return found


# ---- Metrics ----

@pytest.mark.skipif(not os.access(PROMTOOL, os.X_OK), reason=f"{PROMTOOL} not found")
def test_promtool_accepts_what_a_server_under_load_shows(server):
    with Load(server, frame(), 2 * PER_SECOND), Load(server, identity(), 20):
        eventually(lambda: server.metric("millrace_requests_total", model="frame", code="OK") > 10)
        status, text = server.http_get("/metrics")
    assert status == 200
    # Triton's names are Triton's, which promtool dislikes.
    own = "\n".join(line for line in text.splitlines() if "nv_" not in line) + "\n"
    assert "nv_inference_request_success" in text and "nv_" not in own
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=own, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout + done.stderr


def test_demand_is_what_comes_over_what_can_be_done(server):
    labels = '{model="frame",version="1"}'
    ratio = "millrace_desired_replicas_ratio" + labels
    for times in (0.5, 3):
        eventually(lambda: server.metrics()[ratio] == 0)  # The window of 15 seconds has passed.
        with Load(server, frame(), times * PER_SECOND):
            time.sleep(16)
            metrics = server.metrics()
        able = metrics["millrace_capacity_rows_per_second" + labels]
        assert 0 < able < PER_SECOND * 1.05  # Less on a machine that is busy with something else.
        assert metrics[ratio] == pytest.approx(times * PER_SECOND / able, rel=0.2)
        assert times < 1 or metrics["millrace_saturation_ratio" + labels] > 0.9


def test_tritons_names_say_the_same(server):
    server.stub.ModelInfer(identity())
    metrics = server.metrics()
    labels = '{model="identity",version="1"}'
    ok = metrics['millrace_requests_total{model="identity",version="1",code="OK"}']
    assert metrics["nv_inference_request_success" + labels] == ok > 0
    assert metrics["nv_inference_count" + labels] == ok
    assert metrics["nv_inference_exec_count" + labels] == metrics[
        "millrace_batch_rows_count" + labels]
    seconds = metrics["millrace_request_duration_seconds_sum" + labels]
    assert metrics["nv_inference_request_duration_us" + labels] == pytest.approx(
        seconds * 1e6, rel=0.001, abs=100)
    for name in ("compute_infer", "compute_input", "compute_output", "queue"):
        assert f"nv_inference_{name}_duration_us{labels}" in metrics


def test_process_workers_and_cgroup_are_shown(server):
    metrics = server.metrics()
    assert metrics["process_resident_memory_bytes"] > 1 << 20
    assert metrics["process_start_time_seconds"] == pytest.approx(time.time(), abs=600)
    assert 10 < metrics["process_open_fds"] < metrics["process_max_fds"]
    labels = '{model="identity",version="1"}'
    assert metrics["millrace_worker_cpu_seconds_total" + labels] > 0
    eventually(lambda: server.metrics()["millrace_worker_memory_bytes" + labels] > 1 << 20)
    assert metrics["millrace_model_load_duration_seconds" + labels] > 0
    states = {name: value for name, value in metrics.items()
              if name.startswith('millrace_replica_state{model="identity"')}
    assert len(states) == 2 * 3
    assert {name for name, value in states.items() if value == 1} == {
        name for name in states if 'state="ready"' in name}


def test_missed_deadlines_and_cancels_are_counted_by_stage(server):
    def late(stage):
        return server.metric("millrace_deadline_exceeded_total", model="frame", stage=stage)
    before = late("queue") + late("admission") + late("execution")
    calls = [server.stub.ModelInfer.future(frame(), timeout=0.08) for _ in range(8)]
    codes = [call.code() for call in calls]
    assert grpc.StatusCode.DEADLINE_EXCEEDED in codes
    eventually(lambda: late("queue") + late("admission") + late("execution") > before)
    eventually(lambda: server.metric("millrace_in_flight_requests", model="frame") == 0)

    waiting = [server.stub.ModelInfer.future(frame()) for _ in range(8)]
    eventually(lambda: server.metric("millrace_in_flight_requests", model="frame") > 2)
    cancelled = server.metric("millrace_cancelled_total", model="frame")
    for call in waiting:
        call.cancel()
    eventually(lambda: server.metric("millrace_cancelled_total", model="frame") > cancelled)
    eventually(lambda: server.metric("millrace_in_flight_requests", model="frame") == 0)


def test_streams_have_metrics_of_their_own_by_name(server):
    streams = []
    for name in ("hall/1", "hall/2", "hall/3"):  # There is room for two names.
        streams.append(client.Stream(server.stub, millrace_overflow="latest",
                                     millrace_stream_name=name))
        eventually(lambda: server.metric("millrace_streams") == len(streams))
    for stream in streams:
        stream.send(*(frame(i) for i in range(6)))
    counts = [collections.Counter(map(client.status_of, stream.rest())) for stream in streams]
    for name, count in zip(("hall/1", "hall/2", "other"), counts):
        eventually(lambda: server.metric("millrace_stream_answers_total", stream=name) == 6)
        dropped = count[grpc.StatusCode.ABORTED]
        assert dropped > 0
        assert server.metric("millrace_stream_drops_total", stream=name) == dropped
        assert server.metric("millrace_stream_age_seconds_count", stream=name) == 6 - dropped
    assert server.metric("millrace_stream_answers_total", stream="hall/3") == 0
    metrics = server.metrics()
    names = {re.search(r'stream="([^"]*)"', name)[1] for name in metrics
             if name.startswith("millrace_stream_answers_total")}
    assert names == {"unnamed", "other", "hall/1", "hall/2"}
    assert metrics["millrace_reorder_buffer_items"] == 0
    assert metrics["millrace_head_of_line_wait_seconds_count"] >= 18


def test_stream_whose_name_is_none_is_told_so(server):
    stream = client.Stream(server.stub, millrace_stream_name="a b")
    error = client.error_of(stream.answer)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "millrace-stream-name" in error.details()


# ---- The access log ----

def test_access_log_says_how_a_request_fared(server):
    server.stub.ModelInfer(identity(4711))
    line = eventually(lambda: next((line for line in lines(server, "request")
                                    if line["request_id"] == "4711"), None))
    assert line["level"] == "info" and line["rpc"] == "ModelInfer"
    assert (line["model"], line["version"], line["code"]) == ("identity", "1", "OK")
    assert re.fullmatch(r"[0-9a-f]{32}", line["trace_id"])
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert line["total_us"] >= line["execute_us"] > 0
    assert line["output_bytes"] == 64 and line["batch_size"] == 1


def test_access_log_has_failures_and_no_forged_lines(server):
    message = client.request("identity", id='x"\n{"message":"forged"}')
    message.model_name = "nobody"
    assert client.error_of(lambda: server.stub.ModelInfer(message)).code() == (
        grpc.StatusCode.NOT_FOUND)
    line = eventually(lambda: next((line for line in lines(server, "request")
                                    if line["model"] == "nobody"), None))
    assert line["code"] == "NOT_FOUND"
    assert line["request_id"] == 'x"\n{"message":"forged"}'
    assert not lines(server, "forged")


# ---- Trace context ----

def test_trace_context_comes_back_with_a_span_of_the_servers(server):
    _, call = server.stub.ModelInfer.with_call(identity(), metadata=[("traceparent", RECORDED)])
    back = dict(call.trailing_metadata())["traceparent"]
    assert re.fullmatch(rf"00-{TRACE_ID}-[0-9a-f]{{16}}-01", back) and back != RECORDED
    stream = client.Stream(server.stub)
    stream.send(identity(1, parameters={"traceparent": NOT_RECORDED}), identity(2))
    first, second = stream.rest()
    back = first.infer_response.parameters["traceparent"].string_param
    assert re.fullmatch(rf"00-{TRACE_ID}-[0-9a-f]{{16}}-00", back) and back != NOT_RECORDED
    assert "traceparent" not in second.infer_response.parameters


@pytest.mark.parametrize("nonsense", ["", "00-nonsense", "x" * 1000, "00-" + "0" * 52])
def test_trace_context_that_is_none_is_ignored(server, nonsense):
    stream = client.Stream(server.stub)
    stream.send(identity(1, parameters={"traceparent": nonsense}))
    (answer,) = stream.rest()
    assert client.status_of(answer) == grpc.StatusCode.OK
    assert "traceparent" not in answer.infer_response.parameters


# ---- The trace file ----

def test_trace_file_shows_stages_and_batches(tmp_path):
    path = tmp_path / "trace.json"
    entries = [Entry("delay_frame", "frame", replicas=2)]
    with Server(tmp_path, entries, flags=["--worker", TEST_WORKER, "--trace-file", path,
                                          "--trace-sample", 0.25]) as server:
        stream = client.Stream(server.stub, millrace_stream_name="cam-1")
        stream.send(*(frame(i) for i in range(40)))
        assert len(stream.rest()) == 40
        server.stub.ModelInfer(frame(99), metadata=[("traceparent", RECORDED)])
        assert server.metric("millrace_trace_dropped_total") == 0
    events = json.loads(path.read_text())
    spans = collections.defaultdict(dict)
    for event in events:
        if event["ph"] in "be":
            spans[event["id2"]["local"]][event["name"], event["ph"]] = event
    assert len(spans) == 11  # A quarter of 40, and the one that its client records.
    lanes = {event["tid"]: event["args"]["name"] for event in events
             if event["ph"] == "M" and event["name"] == "thread_name"}
    batches = {(lanes[event["tid"]], event["ts"]) for event in events if event["ph"] == "X"}
    assert set(lanes.values()) <= {"frame/1 replica 0", "frame/1 replica 1"}
    for span in spans.values():
        assert {name for name, _ in span} == {"rpc", "queue", "fill", "execute", "reply"}
        begin = {name: event["ts"] for (name, phase), event in span.items() if phase == "b"}
        end = {name: event["ts"] for (name, phase), event in span.items() if phase == "e"}
        assert begin["rpc"] == begin["queue"] <= begin["fill"] <= end["fill"] <= end["queue"]
        assert end["queue"] == begin["execute"]
        assert 49e3 < end["execute"] - begin["execute"] < 5e6
        assert end["execute"] == begin["reply"] <= end["reply"] == end["rpc"]
        replica = span["execute", "b"]["args"]["replica"]
        assert (f"frame/1 replica {replica}", begin["execute"]) in batches
    recorded = [span["rpc", "b"]["args"] for span in spans.values()
                if span["rpc", "b"]["args"]["request_id"] == "99"]
    assert [args["trace_id"] for args in recorded] == [TRACE_ID]
    assert [args["parent"] for args in recorded] == ["00f067aa0ba902b7"]


def test_trace_file_has_a_limit(tmp_path):
    path = tmp_path / "trace.json"
    with Server(tmp_path, ["identity"], flags=["--trace-file", path, "--trace-sample", 1,
                                               "--trace-file-bytes", 20_000]) as server:
        for i in range(100):
            server.stub.ModelInfer(identity(i))
        eventually(lambda: server.metric("millrace_trace_dropped_total") > 0)
        eventually(lambda: server.logged("trace.json is full"))
    assert path.stat().st_size < 25_000
    json.loads(path.read_text())


def test_trace_file_that_can_not_be_written_is_an_error_at_start(tmp_path):
    with pytest.raises(AssertionError):
        Server(tmp_path, ["identity"], flags=["--trace-file", tmp_path / "no" / "trace.json"])
