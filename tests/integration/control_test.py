# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Health, reflection, and the methods that are not offered."""

import signal

import client
import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from server_process import MODELS, Server
from tritonclient.grpc import service_pb2

SERVICE = "inference.GRPCInferenceService"
Serving = health_pb2.HealthCheckResponse


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), ["identity", "versions"],
                repositories=[MODELS / "bad"]) as running:
        yield running


@pytest.fixture
def health(server):
    return health_pb2_grpc.HealthStub(server.channel)


def check(health, service):
    return health.Check(health_pb2.HealthCheckRequest(service=service)).status


@pytest.mark.parametrize("service", ["", "liveness", "readiness", SERVICE, "identity", "versions"])
def test_health_of_what_serves(health, service):
    assert check(health, service) == Serving.SERVING


def test_health_of_a_model_that_cant_be_served(health):
    assert check(health, "broken") == Serving.NOT_SERVING


def test_health_of_the_unknown(health):
    assert client.error_of(lambda: check(health, "nobody")).code() == StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert next(watch).status == Serving.SERVICE_UNKNOWN
    watch.cancel()


def reflect(channel, version, *questions):
    """The answers of the reflection service, whose two versions have the same messages."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
    return list(call(iter([reflection_pb2.ServerReflectionRequest(**each) for each in questions])))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_and_describes(server, version):
    listed, described, unknown = reflect(
        server.operator_channel, version, {"list_services": ""}, {"file_containing_symbol": SERVICE},
        {"file_containing_symbol": "no.such.Symbol"})
    assert {service.name for service in listed.list_services_response.service} >= {
        SERVICE, "millrace.v1.Admin", "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection"}
    assert any(b"ModelStreamInfer" in file
               for file in described.file_descriptor_response.file_descriptor_proto)
    assert unknown.error_response.error_code == StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_is_for_operators_unless_asked_otherwise(server, tmp_path, version):
    question = {"list_services": ""}
    error = client.error_of(lambda: reflect(server.channel, version, question))
    assert error.code() == StatusCode.UNIMPLEMENTED
    with Server(tmp_path, ["identity"], flags=["--reflection", "all"]) as open_one:
        listed, = reflect(open_one.channel, version, question)
        assert {service.name for service in listed.list_services_response.service} == {
            SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection"}
    with Server(tmp_path / "off", ["identity"], flags=["--reflection", "off"]) as closed:
        error = client.error_of(lambda: reflect(closed.operator_channel, version, question))
        assert error.code() == StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_loading_and_unloading_are_for_operators(server, method):
    request = getattr(service_pb2, f"{method}Request")(model_name="identity")
    error = client.error_of(lambda: getattr(server.stub, method)(request))
    assert error.code() == StatusCode.PERMISSION_DENIED
    assert "--admin-listen" in error.details()


def test_operators_address_runs_no_model(server):
    for call in (lambda: server.operator.ModelInfer(client.numbered("identity", 0)),
                 lambda: list(server.operator.ModelStreamInfer(iter([])))):
        error = client.error_of(call)
        assert error.code() == StatusCode.PERMISSION_DENIED
        assert "--grpc-listen" in error.details()


@pytest.mark.parametrize("method", [
    "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
    "TraceSetting", "LogSettings"])
def test_other_methods_are_unimplemented(server, method):
    request = getattr(service_pb2, f"{method}Request")()
    error = client.error_of(lambda: getattr(server.stub, method)(request))
    assert error.code() == StatusCode.UNIMPLEMENTED
    assert method in error.details()


def test_methods_that_nobody_declared_are_unimplemented(server):
    for path in (f"/{SERVICE}/Guess", "/other.Service/Guess"):
        call = server.channel.unary_unary(path)
        assert client.error_of(lambda call=call: call(b"")).code() == StatusCode.UNIMPLEMENTED


def test_ready_live_and_metrics_over_http(server):
    assert server.http_get("/livez")[0] == 200
    assert server.http_get("/readyz")[0] == 200
    assert server.http_get("/metrics")[0] == 200
    assert server.http_get("/elsewhere")[0] == 404


def test_health_flips_when_the_server_drains(tmp_path):
    server = Server(tmp_path, ["identity"], flags=["--drain-delay", "3s"])
    health = health_pb2_grpc.HealthStub(server.channel)
    services = ["", SERVICE, "identity"]
    watches = [health.Watch(health_pb2.HealthCheckRequest(service=service))
               for service in services]
    assert [next(watch).status for watch in watches] == [Serving.SERVING] * 3
    assert server.stub.ServerReady(service_pb2.ServerReadyRequest()).ready
    server.signal(signal.SIGTERM)
    assert [next(watch).status for watch in watches] == [Serving.NOT_SERVING] * 3
    assert [check(health, service) for service in services] == [Serving.NOT_SERVING] * 3
    assert not server.stub.ServerReady(service_pb2.ServerReadyRequest()).ready
    assert server.stub.ServerLive(service_pb2.ServerLiveRequest()).live
    assert server.wait() == 0  # Also with watches open,
    for watch in watches:  # which end then.
        assert isinstance(client.error_of(lambda watch=watch: next(watch)), grpc.RpcError)
