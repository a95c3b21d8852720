# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What a real server says of itself over HTTP: /statusz, /readyz?verbose, and the events."""

import json
import urllib.request

import client
import pytest
from server_process import PATIENCE, Server, eventually


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), ["identity"]) as running:
        yield running


def status(server):
    code, body = server.http_get("/statusz")
    assert code == 200
    return json.loads(body)


def identity(server):
    return next(model for model in status(server)["models"] if model["name"] == "identity")


def test_status_tells_models_replicas_and_what_they_did(server):
    before = identity(server)
    assert (before["state"], before["healthy"], len(before["replicas"])) == ("READY", True, 2)
    assert {each["pid"] for each in before["replicas"]} == set(server.replicas())
    for number in range(5):
        server.stub.ModelInfer(client.numbered("identity", number))
    after = eventually(lambda: (now := identity(server))["succeeded"] >= before["succeeded"] + 5
                       and now)
    assert after["succeeded"] == before["succeeded"] + 5
    assert sum(after["latency"]["counts"]) == sum(before["latency"]["counts"]) + 5
    assert sum(count for _, count in after["batch_sizes"]) == after["batches"]


def test_status_tells_streams_and_configuration(server):
    stream = client.Stream(server.stub, millrace_stream_name="camera-7", millrace_window=5)
    stream.send(client.numbered("identity", 0))
    stream.answer()
    told = eventually(lambda: (now := status(server))["streams"] and now)
    seen = told["streams"][0]
    assert told["streams_open"] == 1
    assert (seen["name"], seen["window"], seen["answers"], seen["drops"]) == ("camera-7", 5, 1, 0)
    assert stream.rest() == []
    eventually(lambda: status(server)["streams_open"] == 0)
    assert status(server)["configuration"]["http-listen"] == "127.0.0.1:0"


def test_killed_replica_is_told_with_its_cause(server):
    killed = server.replicas()[0]
    server.signal_worker(killed)
    restart = eventually(lambda: status(server)["restarts"])[0]
    assert restart["model"] == "identity" and "signal 9" in restart["cause"], restart
    eventually(lambda: all(each["serves"] for each in identity(server)["replicas"]))


def test_verbose_readiness_names_the_models(server):
    eventually(lambda: server.http_get("/readyz")[0] == 200)
    code, body = server.http_get("/readyz?verbose")
    assert code == 200
    assert "[+]model 'identity' version '1' ok" in body.splitlines(), body
    assert body.splitlines()[-1] == "ready"


def test_events_come_every_second_and_agree_with_the_status(server):
    with urllib.request.urlopen(f"http://{server.http}/events", timeout=PATIENCE) as events:
        assert events.headers["Content-Type"] == "text/event-stream"
        told = []
        while len(told) < 3:
            line = events.readline().decode()
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
    times = [each["uptime_seconds"] for each in told]
    assert times == sorted(times) and times[2] - times[0] >= 1.5, times
    assert told[-1].keys() == status(server).keys()
