# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Who may connect, and call what: TLS, tokens, addresses, limits of connections."""

import contextlib
import hashlib
import os
import socket
import ssl
import stat
import subprocess
import time

import client
import grpc
import pytest
from admin import PROTOSET
from certificates import Authority
from google.protobuf import descriptor_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from server_process import BIN, CHANNEL_OPTIONS, Server, eventually, refusal_to_start
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
CAMERA, OPERATOR = "camera-token", "operator-token"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


class SecureServer(Server):
    """Its own clients connect with `channel_credentials`, or with `authorization`."""

    def __init__(self, *arguments, credentials=None, token=None, **more):
        self.credentials, self.token = credentials, token
        super().__init__(*arguments, **more)

    def new_channel(self, address=None, credentials=None):
        credentials = credentials or self.credentials
        address = address or self.address
        if credentials is None or address.startswith("unix:"):
            channel = super().new_channel(address)
        else:
            channel = grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        return grpc.intercept_channel(channel, Bearer(self.token)) if self.token else channel


class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds a token to every call."""

    def __init__(self, token):
        self.metadata = [("authorization", f"Bearer {token}")]

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._with(details), request)

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(self._with(details), requests)

    def _with(self, details):
        return details._replace(metadata=[*(details.metadata or []), *self.metadata])


def tls_flags(pair):
    return ["--tls-cert", pair.certificate, "--tls-key", pair.key]


def trusting(authority, pair=None):
    """Credentials of a client that trusts the authority and shows `pair`."""
    key, chain = pair.texts() if pair else (None, None)
    return grpc.ssl_channel_credentials(authority.file.read_bytes(), key, chain)


def shown_serial(address, versions=None):
    """The serial number of the certificate that a server shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if versions:
        context.minimum_version = context.maximum_version = versions
        context.set_ciphers("ALL:@SECLEVEL=0")
    host, port = address.rsplit(":", 1)
    with (socket.create_connection((host, int(port)), timeout=20) as plain,
          context.wrap_socket(plain, server_hostname="localhost") as secure):
        text = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True))
    shown = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=text, text=True,
                           check=True, capture_output=True).stdout
    return int(shown.strip().partition("=")[2], 16)


def infers(channel, number=0):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert stub.ModelInfer(client.numbered("identity", number)).id == str(number)
    return True


def refused(channel):
    """The error of a call over a channel that must not work."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    return client.error_of(lambda: stub.ModelInfer(client.numbered("identity", 0), timeout=20))


def cli(server, *arguments, env=None):
    return subprocess.run([str(BIN / "millrace"), *map(str, arguments)], text=True, timeout=60,
                          capture_output=True, check=False, env={**os.environ, **(env or {})})


# ---- TLS ----

def test_new_certificate_is_shown_without_a_restart_and_open_streams_live_on(tmp_path, authority):
    used = authority.sign("used", 0x11)
    with SecureServer(tmp_path, ["identity"], flags=tls_flags(used),
                      credentials=trusting(authority)) as server:
        assert shown_serial(server.address) == 0x11
        first_expiry = server.metric("millrace_tls_certificate_expiry_timestamp_seconds")
        assert first_expiry > time.time()
        stream = client.Stream(server.stub)
        stream.send(client.numbered("identity", 1))
        assert stream.answer().infer_response.id == "1"

        used.replace(authority.sign("next", 0x22, days=25))
        eventually(lambda: shown_serial(server.address) == 0x22)
        assert server.metric("millrace_tls_certificate_expiry_timestamp_seconds") > first_expiry
        stream.send(client.numbered("identity", 2))
        assert stream.answer().infer_response.id == "2"
        with server.new_channel() as channel:
            assert infers(channel)
        stream.half_close()


def test_files_that_dont_belong_together_are_not_taken_over(tmp_path, authority):
    used = authority.sign("good", 0x31)
    other = authority.sign("other", 0x32)
    with SecureServer(tmp_path, ["identity"], flags=tls_flags(used),
                      credentials=trusting(authority)) as server:
        used.certificate.write_bytes(other.certificate.read_bytes())
        eventually(lambda: server.logged("can't be used.*not that of the certificate"))
        assert shown_serial(server.address) == 0x31
        used.key.write_bytes(other.key.read_bytes())
        eventually(lambda: shown_serial(server.address) == 0x32)
        assert not any("PRIVATE KEY" in line for line in server.log)


def test_tls_below_1_2_and_plaintext_are_refused(tmp_path, authority):
    with SecureServer(tmp_path, ["identity"], flags=tls_flags(authority.sign("old", 0x41)),
                      credentials=trusting(authority)) as server:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                shown_serial(server.address, version)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert shown_serial(server.address, version) == 0x41
        with grpc.insecure_channel(server.address) as channel:
            assert refused(channel).code() == StatusCode.UNAVAILABLE
        assert infers(server.channel)


def test_clients_need_a_certificate_that_the_authority_has_signed(tmp_path, authority):
    other = Authority(tmp_path / "elsewhere", "stranger")
    flags = [*tls_flags(authority.sign("mutual", 0x51)), "--tls-client-ca", authority.file]
    mine = authority.sign("client", 0x52)
    with SecureServer(tmp_path, ["identity"], flags=flags,
                      credentials=trusting(authority, mine)) as server:
        assert infers(server.channel)
        for bad in (None, other.sign("forged", 0x53)):
            with server.new_channel(credentials=trusting(authority, bad)) as channel:
                assert refused(channel).code() == StatusCode.UNAVAILABLE


def test_only_certificates_of_the_list_are_let_in(tmp_path, authority):
    camera = "spiffe://site/camera"
    flags = [*tls_flags(authority.sign("listed", 0x61)), "--tls-client-ca", authority.file,
             "--tls-allowed-san", camera, "--tls-allowed-san", "ops.example"]
    credentials = {name: trusting(authority, authority.sign(f"client{i}", 0x62 + i, name))
                   for i, name in enumerate((f"URI:{camera}", "DNS:ops.example",
                                             "URI:spiffe://site/other"))}
    with SecureServer(tmp_path, ["identity"], flags=flags,
                      credentials=credentials[f"URI:{camera}"]) as server:
        assert infers(server.channel)
        with server.new_channel(credentials=credentials["DNS:ops.example"]) as channel:
            assert infers(channel)
        with server.new_channel(credentials=credentials["URI:spiffe://site/other"]) as channel:
            error = refused(channel)
            assert error.code() == StatusCode.PERMISSION_DENIED
            assert "spiffe://site/other" in error.details()
            health = health_pb2_grpc.HealthStub(channel)
            error = client.error_of(lambda: health.Check(health_pb2.HealthCheckRequest()))
            assert error.code() == StatusCode.PERMISSION_DENIED
        assert server.metric("millrace_denied_calls_total", reason="permission_denied") == 2


def test_stock_clients_and_our_own_speak_tls(tmp_path, authority):
    flags = [*tls_flags(authority.sign("stock", 0x71)), "--tls-client-ca", authority.file]
    mine = authority.sign("user", 0x72)
    with SecureServer(tmp_path, ["identity"], flags=flags,
                      credentials=trusting(authority, mine)) as server:
        stock = triton.InferenceServerClient(
            server.address, ssl=True, root_certificates=str(authority.file),
            private_key=str(mine.key), certificate_chain=str(mine.certificate))
        assert stock.is_server_ready() and stock.is_model_ready("identity")
        files = ["--tls-ca", authority.file, "--tls-cert", mine.certificate, "--tls-key", mine.key]
        ran = cli(server, "health", "--url", server.address, *files)
        assert (ran.returncode, ran.stdout) == (0, "SERVING\n"), ran.stderr
        ran = cli(server, "admin", "list", "--url", server.operator_address, *files)
        assert ran.returncode == 0 and "identity version 1" in ran.stdout, ran.stderr
        ran = cli(server, "health", "--url", server.address, "--connect-timeout", "2")
        assert ran.returncode == 2
        ran = cli(server, "health", "--url", server.address, "--tls-ca", "/nowhere")
        assert ran.returncode != 0 and "/nowhere" in ran.stderr


@pytest.mark.parametrize("flags, said", [
    (["--tls-cert", __file__], "--tls-key"),
    (["--tls-client-ca", __file__], "--tls-cert"),
    (["--tls-allowed-san", "a"], "--tls-client-ca"),
    (["--tls-cert", __file__, "--tls-key", __file__], "no certificate in PEM"),
    (["--token-file", __file__], "line 3"),
    (["--token-file", "/nowhere"], "/nowhere"),
    (["--admin-listen", "0.0.0.0:0"], "other machines"),
    (["--channelz"], "--admin-listen"),
    (["--unix-mode", "0999"], "octal"),
    (["--grpc-listen", "127.0.0.1:0?guard=yes"], "expected guard=on or guard=off"),
    (["--tls-cert", __file__, "--tls-key", __file__, "--grpc-listen", "127.0.0.1:0?guard=on"],
     "only gRPC can read it"),
])
def test_settings_that_make_no_sense_are_refused(tmp_path, flags, said):
    assert said in refusal_to_start("--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
                                    "--model-repository", tmp_path, *flags)


# ---- Tokens, and the class of every method ----

def token_line(classes, token):
    return f"{classes} {hashlib.sha256(token.encode()).hexdigest()}  somebody\n"


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text("# who may what\n" + token_line("infer", CAMERA) +
                    token_line("infer,read,admin", OPERATOR))
    return file


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, token_file):
    flags = ["--token-file", token_file, "--reflection", "all", "--channelz"]
    with SecureServer(tmp_path_factory.mktemp("server"), ["identity"], flags=flags,
                      token=CAMERA) as running:
        yield running


def every_method():
    """The path and kind of every method that the build declares."""
    for file in descriptor_pb2.FileDescriptorSet.FromString(PROTOSET.read_bytes()).file:
        for service in file.service:
            for method in service.method:
                yield f"/{file.package}.{service.name}/{method.name}"
    for method in ("GetTopChannels", "GetServers", "GetServer", "GetServerSockets", "GetChannel",
                   "GetSubchannel", "GetSocket"):
        yield f"/grpc.channelz.v1.Channelz/{method}"
    yield "/inference.GRPCInferenceService/NobodyDeclaredThis"


def code_of(address, path, token=None):
    """The code of an empty call, which must be judged before anything else."""
    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        call = channel.stream_stream(path)(iter([b""]), metadata=metadata, timeout=20)
        with contextlib.suppress(grpc.RpcError):
            next(call, None)
        code = call.code() if not call.is_active() else StatusCode.OK
        call.cancel()
        return code


@pytest.mark.parametrize("path", list(every_method()))
def test_no_method_is_reached_without_a_token_but_health(guarded, path):
    declared = "NobodyDeclaredThis" not in path
    for address in (guarded.address, guarded.operator_address):
        for token in (None, "guessed", hashlib.sha256(CAMERA.encode()).hexdigest()):
            code = code_of(address, path, token)
            if path.startswith("/grpc.health.") and address == guarded.address:
                assert code in (StatusCode.OK, StatusCode.INVALID_ARGUMENT, None), code
            else:
                assert code in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED), code
            if not declared:
                assert code == StatusCode.PERMISSION_DENIED


def test_token_is_good_for_its_classes_only(guarded):
    assert infers(guarded.channel)
    for call in (lambda: guarded.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest()),
                 lambda: guarded.stub.ServerMetadata(service_pb2.ServerMetadataRequest())):
        error = client.error_of(call)
        assert error.code() == StatusCode.PERMISSION_DENIED
        assert "read" in error.details()
    stream = client.Stream(guarded.stub)
    stream.send(client.numbered("identity", 1))
    assert stream.answer().infer_response.id == "1"
    stream.half_close()
    unload = "/inference.GRPCInferenceService/RepositoryModelUnload"
    assert code_of(guarded.operator_address, unload, CAMERA) == StatusCode.PERMISSION_DENIED
    assert code_of(guarded.address, unload, OPERATOR) == StatusCode.PERMISSION_DENIED
    assert code_of(guarded.operator_address, unload, OPERATOR) not in (
        StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED)


def test_health_needs_no_token(guarded):
    with grpc.insecure_channel(guarded.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == SERVING


def test_operators_with_a_token_see_channelz(guarded):
    servers = "/grpc.channelz.v1.Channelz/GetServers"
    with grpc.insecure_channel(guarded.operator_address) as channel:
        answer = channel.unary_unary(servers)(
            b"", metadata=[("authorization", f"Bearer {OPERATOR}")], timeout=20)
    assert len(answer) > 10
    assert code_of(guarded.address, servers, OPERATOR) == StatusCode.PERMISSION_DENIED


def test_our_client_brings_a_token(guarded, tmp_path):
    file = tmp_path / "token"
    file.write_text(OPERATOR + "\n")
    command = ["models", "--url", guarded.address]
    assert cli(guarded, *command, "--token-file", file).returncode == 0
    assert cli(guarded, *command, env={"MILLRACE_TOKEN": OPERATOR}).returncode == 0
    denied = cli(guarded, *command, env={"MILLRACE_TOKEN": CAMERA})
    assert denied.returncode == 3 and "not good for" in denied.stderr
    none = cli(guarded, *command)
    assert none.returncode == 3 and "a token is needed" in none.stderr
    ran = cli(guarded, "admin", "list", "--url", guarded.operator_address, "--token-file", file)
    assert ran.returncode == 0, ran.stderr


def test_tokens_are_taken_over_and_never_logged(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(token_line("infer", CAMERA))
    with SecureServer(tmp_path, ["identity"], flags=["--token-file", file],
                      token=CAMERA) as server:
        assert infers(server.channel)
        stream = client.Stream(server.stub)
        stream.send(client.numbered("identity", 1))
        stream.answer()
        (tmp_path / "new").write_text(token_line("infer", "another"))
        (tmp_path / "new").rename(file)
        infer = "/inference.GRPCInferenceService/ModelInfer"
        eventually(lambda: code_of(server.address, infer, CAMERA) == StatusCode.UNAUTHENTICATED)
        assert code_of(server.address, infer, "another") != StatusCode.UNAUTHENTICATED
        stream.send(client.numbered("identity", 2))  # It was let in, and stays.
        assert stream.answer().infer_response.id == "2"
        stream.half_close()
        file.write_text("infer " + CAMERA + "\n")  # The token itself, where its hash should be.
        eventually(lambda: server.logged("can't be used.*line 1"))
        assert code_of(server.address, infer, "another") != StatusCode.UNAUTHENTICATED
        assert not any(CAMERA in line for line in server.log)


# ---- Addresses ----

def test_probes_need_neither_tls_nor_a_token(tmp_path, authority, token_file):
    flags = [*tls_flags(authority.sign("probed", 0x81)), "--token-file", token_file,
             "--health-listen", "127.0.0.1:0"]
    with SecureServer(tmp_path, ["identity"], flags=flags, credentials=trusting(authority),
                      token=CAMERA) as server:
        address = server.logged(r"probes ask (\S+)")[0][1]
        with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "identity", "inference.GRPCInferenceService"):
                assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == SERVING
            error = refused(channel)
            assert error.code() == StatusCode.UNIMPLEMENTED
            assert cli(server, "health", "--url", address).returncode == 0
            server.signal()
            assert next(watch).status != SERVING
        assert server.wait() == 0


def test_plaintext_beyond_the_loopback_is_warned_of_once(tmp_path, authority):
    both = ("0.0.0.0:0", "127.0.0.1:0")
    with Server(tmp_path / "plain", ["identity"], listen=both) as server:
        warning, = server.logged(r"has no TLS")
        assert "0.0.0.0:" in warning.string and "127.0.0.1:" not in warning.string
    with Server(tmp_path / "loopback", ["identity"]) as server:
        assert not server.logged("has no TLS")
    with SecureServer(tmp_path / "tls", ["identity"], listen=("0.0.0.0:0",),
                      flags=tls_flags(authority.sign("warned", 0x91)),
                      credentials=trusting(authority)) as server:
        assert not server.logged("has no TLS")


def test_unix_socket_has_its_mode_and_lets_in_its_users(tmp_path):
    path = tmp_path / "millrace.sock"
    for mode, uid, let_in in (("0660", os.getuid(), True), ("0600", os.getuid() + 1, False)):
        flags = ["--unix-mode", mode, "--unix-allow-uid", uid]
        with Server(tmp_path / mode, ["identity"], listen=("127.0.0.1:0", f"unix:{path}"),
                    flags=flags) as server:
            assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
            with server.new_channel(f"unix:{path}") as channel:
                if let_in:
                    assert infers(channel)
                else:
                    assert refused(channel).code() == StatusCode.UNAVAILABLE
                    assert server.metric("millrace_refused_connections_total", reason="user") > 0
        assert not path.exists()


# ---- Connections ----

def test_connections_are_bounded_in_all_and_per_peer(tmp_path):
    flags = ["--max-connections", "4", "--max-connections-per-peer", "3"]
    with Server(tmp_path, ["identity"], flags=flags) as server:
        host, port = server.address.rsplit(":", 1)
        assert infers(server.channel)
        with contextlib.ExitStack() as opened:
            def opens(source="127.0.0.1"):
                peer = opened.enter_context(socket.create_connection(
                    (host, int(port)), timeout=10, source_address=(source, 0)))
                try:
                    peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                    return peer.recv(1) != b""  # The server's settings.
                except (ConnectionResetError, BrokenPipeError):
                    return False

            assert opens() and opens()  # With that of the channel, three.
            assert not opens()
            assert opens("127.0.0.2")
            assert not opens("127.0.0.3")
            assert server.metric("millrace_connections") == 4
            assert server.metric("millrace_refused_connections_total", reason="peer_limit") == 1
            assert server.metric("millrace_refused_connections_total", reason="limit") == 1
            assert infers(server.channel, 1)
        eventually(lambda: server.metric("millrace_connections") == 1)
        with server.new_channel() as channel:
            assert infers(channel, 2)
