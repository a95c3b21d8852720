# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a model is told and keeps no other from being served; what is wrong with the
server's own flags keeps it from starting."""

import json
import os
import re
import subprocess

import client
import pytest
from grpc import StatusCode
from server_process import (BIN, MODELS, PATIENCE, Entry, Server, make_repository,
                            refusal_to_start, server_command)
from tritonclient.grpc import service_pb2

# What each bad model's reason must name.
BAD = {
    "wrong_config": ["OUTPUT__0", "8", "4"],
    "wrong_count": ["3", "1"],
    "wrong_rows": ["OUTPUT__0", "row"],
    "bad_field": ["config.pbtxt:7", "max_batch_sizes"],
    "no_config": ["config.pbtxt", "max_batch_size", "input", "output"],
    "broken": ["TorchScript"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    more = make_repository(folder / "more", [
        Entry("identity", "deaf", config="response_cache { enable: true }\n"),
        Entry("identity", "empty_versions", config="version_policy { specific { versions: 7 } }\n"),
    ])
    (more / "nothing").mkdir()
    with Server(folder, ["identity"], repositories=[MODELS / "bad", more]) as running:
        yield running


def index(server, ready=False):
    request = service_pb2.RepositoryIndexRequest(ready=ready)
    return {model.name: model for model in server.stub.RepositoryIndex(request).models}


def test_there_is_a_test_for_every_bad_model():
    assert {path.name for path in (MODELS / "bad").iterdir()} == set(BAD)


@pytest.mark.parametrize("name", BAD)
def test_bad_model_is_unavailable_with_the_reason(server, name):
    model = index(server)[name]
    assert model.state == "UNAVAILABLE"
    for part in BAD[name]:
        assert part in model.reason
    error = client.error_of(lambda: server.stub.ModelInfer(
        client.request(name, as_model="identity")))
    assert error.code() == StatusCode.UNAVAILABLE
    assert name in error.details() and BAD[name][0] in error.details()
    assert not server.stub.ModelReady(service_pb2.ModelReadyRequest(name=name)).ready
    assert [line for line in server.log if name in line and " E " in line]


def test_reason_of_a_missing_config_shows_one_to_start_from(server):
    reason = index(server)["no_config"].reason
    assert re.search(r"max_batch_size: \d+", reason)
    assert re.search(r"input \[.*data_type: TYPE_\w+.*dims: \[", reason, re.DOTALL)


def test_refused_field_and_missing_version_are_named(server):
    models = index(server)
    assert "response_cache" in models["deaf"].reason
    assert "not supported" in models["deaf"].reason
    assert models["empty_versions"].state == "UNAVAILABLE"
    assert "7" in models["empty_versions"].reason
    assert models["nothing"].state == "UNAVAILABLE"


def test_good_model_beside_bad_ones_serves(server):
    assert index(server)["identity"].state == "READY"
    assert list(index(server, ready=True)) == ["identity"]
    stream = client.Stream(server.stub)
    stream.send(client.request("broken", as_model="identity"), client.numbered("identity", 1))
    refused, answered = stream.rest()
    assert client.status_of(refused) == StatusCode.UNAVAILABLE
    assert answered.infer_response.id == "1"


def test_bad_models_leave_no_process(server):
    # The server, and of `identity` a template and two replicas.
    assert len(server.processes()) == 4


def test_plan_is_printed(server):
    header, = server.logged(r"model +version +engine +replica +device +cores +threads")
    assert server.logged(r"identity +1 +torchscript +0-1 +cpu +\S+ +1")


def test_taken_port_is_an_error_that_names_it(server, tmp_path):
    repository = ["--model-repository", tmp_path]
    assert server.address in refusal_to_start(*repository, "--http-listen", "127.0.0.1:0",
                                              "--grpc-listen", server.address)
    assert server.http in refusal_to_start(*repository, "--http-listen", server.http,
                                           "--grpc-listen", "127.0.0.1:0")


@pytest.mark.parametrize("flags, named", [
    (["--model-repository", "/nowhere/at/all"], "/nowhere/at/all"),
    (["--grpc-listen", "somewhere"], "somewhere"),
    (["--http-listen", "127.0.0.1"], "127.0.0.1"),
    (["--drain-delay", "soon"], "soon"),
    (["--stream-window", "0"], "stream-window"),
    (["--stream-window", "64", "--max-stream-window", "32"], "max-stream-window"),
    (["--max-stream-bytes", "0"], "max-stream-bytes"),
    (["--grpc-memory-bytes", "-1"], "grpc-memory-bytes"),
    (["--no-such-flag"], "no-such-flag"),
    (["--worker", "/bin/false"], "/bin/false"),
])
def test_wrong_flags_are_named(flags, named, tmp_path):
    defaults = {"--http-listen": "127.0.0.1:0", "--grpc-listen": "127.0.0.1:0",
                "--model-repository": tmp_path}
    for name, value in defaults.items():
        if name not in flags:
            flags = [*flags, name, value]
    assert named in refusal_to_start(*flags)


def test_repository_must_be_named():
    assert "--model-repository" in refusal_to_start("--http-listen", "127.0.0.1:0")


def test_server_with_an_empty_repository_runs_with_nothing_to_serve(tmp_path):
    with Server(tmp_path, repositories=[tmp_path]) as server:
        assert list(index(server)) == []
        assert server.stub.ServerReady(service_pb2.ServerReadyRequest()).ready


def test_json_log_has_an_object_per_line(server, tmp_path):
    said = refusal_to_start("--log-format", "json", "--http-listen", "127.0.0.1:0",
                            "--grpc-listen", server.address, "--model-repository", tmp_path)
    lines = [json.loads(line) for line in said.splitlines()]
    assert len(lines) > 2 and server.address in json.dumps(lines[-1])


def test_version_names_what_it_is_built_with():
    text = subprocess.run([BIN / "millrace-server", "--version"], capture_output=True, text=True,
                          check=True, timeout=60).stdout
    assert re.search(r"millrace \d+\.\d+\.\d+", text)
    assert re.search(r"^commit ([0-9a-f]{7,}(-dirty)?|unknown)$", text, re.MULTILINE)
    assert re.search(r"gRPC \d+\.\d+", text) and re.search(r"libtorch \d+\.\d+", text)


def check(*flags):
    return subprocess.run(server_command(*flags, "--check"), capture_output=True, text=True,
                          check=False, timeout=PATIENCE)


def test_check_loads_everything_and_listens_nowhere(server, tmp_path):
    good = make_repository(tmp_path / "good", ["identity"])
    # The addresses are taken, and nobody minds.
    done = check("--model-repository", good, "--grpc-listen", server.address, "--http-listen",
                 server.http)
    assert (done.returncode, done.stdout) == (0, "all of it would serve\n"), done.stderr


def test_check_names_every_model_that_would_not_serve(tmp_path):
    good = make_repository(tmp_path / "good", ["identity"])
    bad = [MODELS / "bad", good]
    done = check(*(word for each in bad for word in ("--model-repository", each)))
    assert done.returncode == 1 and done.stdout == ""
    for name, parts in BAD.items():
        assert re.search(rf"^model '{name}'.*{parts[0]}", done.stderr, re.MULTILINE), done.stderr
    assert "model 'identity': " not in done.stderr
    named = check("--model-repository", MODELS / "bad", "--model-repository", good,
                  "--model-control", "explicit", "--load-model", "identity")
    assert named.returncode == 0, named.stderr
    missing = check("--model-repository", good, "--model-control", "explicit", "--load-model",
                    "nobody")
    assert missing.returncode == 1
    assert "model 'nobody': no repository has it" in missing.stderr


def test_check_says_what_is_wrong_with_certificates_tokens_and_models_at_once(tmp_path):
    for name in ("certificate", "key", "tokens"):
        (tmp_path / name).write_text("nothing of the kind\n")
    done = check("--model-repository", MODELS / "bad", "--tls-cert", tmp_path / "certificate",
                 "--tls-key", tmp_path / "key", "--token-file", tmp_path / "tokens")
    assert done.returncode == 1 and done.stdout == ""
    assert str(tmp_path / "certificate") in done.stderr
    assert str(tmp_path / "tokens") in done.stderr
    assert "model '" in done.stderr


def test_settings_come_from_a_file_and_the_environment(tmp_path):
    good = make_repository(tmp_path / "good", ["identity"])
    settings = tmp_path / "millrace.yaml"
    settings.write_text(f"model-repository: {good}\ngrpc-listen: 127.0.0.1:0\n"
                        "http-listen: 127.0.0.1:0\nlog-format: text\nmax-streams: 0\n")
    said = refusal_to_start("--config", settings)
    assert said.startswith(f"{settings}:5: --max-streams: Value 0 not in range"), said
    settings.write_text(settings.read_text().replace("max-streams: 0", "max-streams: 1"))
    printed = subprocess.run(server_command("--config", settings, "--print-config"),
                             env={**os.environ, "MILLRACE_LOG_FORMAT": "json"},
                             capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    assert "\nmax-streams: 1\n" in printed and "\nlog-format: json\n" in printed
