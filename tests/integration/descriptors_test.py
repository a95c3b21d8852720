# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A server that has no file descriptor left for a while."""

import contextlib
import socket

import client
import grpc
import pytest
from admin import Admin
from server_process import Server, eventually
from tritonclient.grpc import service_pb2, service_pb2_grpc

FLAGS = ["--model-control", "explicit", "--load-model", "*", "--admin-listen", "127.0.0.1:0"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), ["identity"], flags=FLAGS) as running:
        yield running


def assert_serves(server, number, stub=None):
    assert (stub or server.stub).ModelInfer(client.numbered("identity", number)).id == str(number)


@pytest.mark.parametrize("left", range(0, 24))
def test_load_and_restart_that_lack_descriptors_fail_and_the_model_serves_on(server, left):
    """Whichever step it is that gets none."""
    admin = Admin(server.logged(r"operators call (\S+)")[0][1])
    admin.list_replicas()  # Its connection is there, and the other one, too.
    server.operator.RepositoryIndex(service_pb2.RepositoryIndexRequest())
    assert_serves(server, 0)
    load = service_pb2.RepositoryModelLoadRequest(model_name="identity")
    with server.descriptors_left(left):
        for operation in (lambda: server.operator.RepositoryModelLoad(load),
                          lambda: admin.restart(model="identity", timeout=0.5)):
            with contextlib.suppress(grpc.RpcError):
                operation()
    eventually(lambda: server.metric("millrace_ready_replicas") == 2)
    assert_serves(server, left)


def test_connections_are_turned_away_and_taken_again_later(server):
    assert_serves(server, 0)
    host, port = server.address.rsplit(":", 1)
    with (contextlib.ExitStack() as accepted,
          server.descriptors_below(max(server.descriptors()) + 1)):
        def turned_away():
            """Whether a new connection is closed; where a number is left it is taken, and kept."""
            peer = socket.create_connection((host, int(port)), timeout=10)
            accepted.enter_context(peer).settimeout(1)
            try:
                return peer.recv(1) == b""
            except ConnectionResetError:
                return True
            except TimeoutError:
                return False

        eventually(turned_away)
        assert all(turned_away() for _ in range(20))
        assert_serves(server, 1)  # Over the connection that is there.
    with server.new_channel() as channel:
        assert_serves(server, 2, service_pb2_grpc.GRPCInferenceServiceStub(channel))
