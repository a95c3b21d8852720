# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The attacks that are over soon, against both doors of a server: others are answered meanwhile, it
costs little, and the guard closes what it should. `./dev abuse` measures all of them."""

import time

import abuse
import client
import pytest
from server_process import eventually
from tritonclient.grpc import service_pb2_grpc

MIB = 1 << 20
SECONDS = 1.0
# What the guard says of each.
FAULTS = {"header_string": "header_block", "continuations": "header_block",
          "many_headers": "header_block", "rapid_reset": "flood", "pings": "flood",
          "settings_frames": "flood", "empty_data": "flood"}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    with abuse.server(tmp_path_factory.mktemp("server"), "--access-log", "1") as running:
        yield running


def closed(server, fault):
    return server.metric("millrace_guard_closed_connections_total", reason=fault)


def asks_until(server, address, seconds):
    """Asks one after the other, and returns how often it was answered."""
    until, answers = time.monotonic() + seconds, 0
    with server.new_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while time.monotonic() < until:
            assert stub.ModelInfer(client.numbered("identity", answers)).id == str(answers)
            answers += 1
            time.sleep(0.01)
    return answers


@pytest.mark.parametrize("name", FAULTS)
def test_guard_closes_who_sends_what_is_dear_to_read(attacked, name):
    before, memory = closed(attacked, FAULTS[name]), attacked.resident_bytes()
    cpu = abuse.cpu_seconds(attacked.pid)
    with abuse.attacking(name, attacked.addresses[1], SECONDS) as report:
        assert asks_until(attacked, attacked.addresses[1], SECONDS) > 5
    cpu = abuse.cpu_seconds(attacked.pid) - cpu
    assert report[0]["lost"] == report[0]["connections"] == 1
    assert closed(attacked, FAULTS[name]) == before + 1
    assert report[0]["sent"] < 8 * MIB  # What the kernel's buffers take.
    assert cpu < 1.5 and attacked.resident_bytes() - memory < 64 * MIB


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("name", ["zero_window", "slow_loris", "descriptors"])
def test_others_are_answered_while_a_client_holds_what_it_can(attacked, name, guarded):
    address = attacked.addresses[guarded]
    memory = attacked.resident_bytes()
    with abuse.attacking(name, address, SECONDS):
        assert asks_until(attacked, address, SECONDS) > 5
    assert attacked.resident_bytes() - memory < 96 * MIB
    eventually(lambda: attacked.metric("millrace_connections") <= 2)


def test_guard_lets_pass_what_clients_send(attacked):
    address, before = attacked.addresses[1], attacked.metrics()
    with attacked.new_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = client.Stream(stub)
        for number in range(200):
            stream.send(client.numbered("identity", number, rows=1 + number % 4))
        answers = stream.answers(200)
        assert client.ids(answers) == [str(number) for number in range(200)]
        stream.half_close()
        calls = [stub.ModelInfer.future(client.numbered("identity", number))
                 for number in range(300)]
        for call in calls[::3]:
            call.cancel()
        for number, call in enumerate(calls):
            assert call.cancelled() or call.result().id == str(number)
    for fault in ("malformed", "header_block", "flood"):
        name = f'millrace_guard_closed_connections_total{{reason="{fault}"}}'
        assert attacked.metrics()[name] == before[name]


def test_guarded_connections_are_told_apart(attacked):
    """By their clients' addresses, which fairness between connections goes by."""
    before = len(attacked.logged(r"unix-abstract:millrace/\S+"))
    for _ in range(2):
        with attacked.new_channel(attacked.addresses[1]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            stub.ModelInfer(client.numbered("identity", 0))
    def peers():
        return [found[0] for found in attacked.logged(r"unix-abstract:millrace/\S+/127.0.0.1:\d+")]
    eventually(lambda: len(peers()) == before + 2)
    assert len(set(peers()[before:])) == 2
