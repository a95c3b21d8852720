# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What was measured on this machine is used, by itself, for the file that was measured; and on
another machine, or for another file, it is ignored with one line of the log."""

import hashlib
import json
import pathlib
import re
import shutil

import client
import pytest
import reference
import torch
from grpc import StatusCode
from server_process import MODELS, Entry, Server, make_repository, refusal_to_start
from tritonclient.grpc import service_pb2

EXPLICIT = ["--model-control", "explicit"]
SCRIPT = {"engine": "torchscript", "bfloat16": False, "channels_last": False, "wait": "passive"}
# As the log says which machine this is, and where its plan lies.
OTHERS = (r"models run as configured: the plans in \S+ are of other machines; that of this one \("
          r"(?P<cpu>.*) \((?P<isa>[^()]*)\), (?P<cores>[\d.]+) cores?, (no GPU|GPUs (?P<gpus>.*)), "
          r"libtorch (?P<libtorch>\S+)\) would be (?P<path>\S+)$")


def tuned(model, file, *, replicas=1, threads=1, most_rows=0, mode=None):
    """A model's entry of a plan, measured of `file`."""
    best = {"replicas": replicas, "threads": threads, "most_rows": most_rows}
    if mode:
        best["mode"] = {**SCRIPT, **mode}
    return {"model": model, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "objective": "throughput", "best": best, "rows_per_second": 1200.0,
            "p99_seconds": 0.0125}


def write_plan(path, machine, *models):
    plan = {"millrace_plan": 1, "machine": machine, "models": models}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(plan))


def make_both(repository):
    """The same network as TorchScript and as a package, and nothing that says which one runs."""
    entry = Entry("mlp_pt", "both", replicas=0)
    entry.write(repository)
    shutil.copy(MODELS / "good" / "mlp_pt2" / "1" / "model.pt2", repository / "both" / "1")
    config = repository / "both" / "config.pbtxt"
    config.write_text(config.read_text().replace('platform: "pytorch_libtorch"\n', ""))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = make_repository(tmp_path_factory.mktemp("plan") / "repository",
                             [Entry("conv_net", replicas=0), Entry("identity", replicas=0)])
    make_both(folder)
    (folder / ".millrace").mkdir()
    (folder / ".millrace" / "plan-of-another-one.json").write_text("{}")
    return folder


def load(server, name):
    server.operator.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=name))


@pytest.fixture(scope="module")
def here(repository, tmp_path_factory):
    """This machine's fingerprint as a plan has it, and the path of its plan."""
    with Server(tmp_path_factory.mktemp("here"), repositories=[repository],
                flags=EXPLICIT) as server:
        assert server.logged(OTHERS) == [], "nothing is loaded yet"
        load(server, "identity")
        load(server, "conv_net")
        lines = server.logged(OTHERS)
        assert len(lines) == 1, "it is said once"
        found = lines[0].groupdict()
    return {"cpu": found["cpu"], "isa": found["isa"], "cores": float(found["cores"]),
            "gpus": found["gpus"].split(", ") if found["gpus"] else [],
            "libtorch": found["libtorch"]}, pathlib.Path(found["path"])


def placed(server, model):
    """The last line of the table that has `model`: engine, replicas, threads and whence."""
    row = server.logged(rf"\] {model} +1 +(\S+(?: \S+)*?)  +(\S+) +cpu +\S+ +(\d+) +(\w+)$")[-1]
    return row.groups()


def check_answers(server, name, model):
    for rows in (1, 5, 8):
        inputs = reference.random_inputs(model, rows)
        answer = server.stub.ModelInfer(client.request(name, inputs, as_model=model))
        torch.testing.assert_close(client.outputs_of(answer)["OUTPUT__0"],
                                   reference.outputs(model, inputs)["OUTPUT__0"],
                                   rtol=1e-4, atol=1e-4)


def platform(server, name):
    return server.stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name)).platform


def test_a_plan_of_this_machine_is_used_from_the_start_on(repository, here, tmp_path):
    machine, path = here
    write_plan(path, machine,
               tuned("conv_net", repository / "conv_net/1/model.pt", threads=2, most_rows=2,
                     mode={"channels_last": True, "wait": "active"}),
               tuned("both", repository / "both/1/model.pt2", mode={"engine": "aotinductor"}))
    with Server(tmp_path, repositories=[repository]) as server:
        assert placed(server, "conv_net") == ("torchscript channels-last active", "0", "2",
                                              "measured")
        assert placed(server, "both") == ("aotinductor", "0", "1", "measured")
        assert placed(server, "identity") == ("torchscript", "0-1", "1", "automatic")
        assert server.logged(r"'conv_net' version 1 runs as measured on this machine: 1 x 2 "
                             r"threads, 2 rows, torchscript channels-last active: "
                             r"1200 rows/s, p99 12.5ms \(throughput\)$")
        assert not server.logged(r"runs? as configured")
        assert server.metric("millrace_ready_replicas", model="conv_net") == 1
        assert platform(server, "both") == "torch_aoti"
        check_answers(server, "conv_net", "conv_net")
        check_answers(server, "both", "mlp_pt")
        # 1, 5 and 8 rows, two at a time.
        assert server.metric("millrace_batch_rows_count", model="conv_net") == 1 + 3 + 4


def test_a_plan_is_read_again_for_models_that_are_loaded_later(repository, here, tmp_path):
    machine, path = here
    path.unlink(missing_ok=True)
    file = repository / "conv_net/1/model.pt"
    with Server(tmp_path, repositories=[repository], flags=EXPLICIT) as server:
        load(server, "conv_net")
        assert placed(server, "conv_net") == ("torchscript", "0-1", "1", "automatic")
        load(server, "both")
        assert platform(server, "both") == "pytorch_libtorch", "it runs on every machine"
        check_answers(server, "both", "mlp_pt")

        write_plan(path, machine, tuned("conv_net", file, threads=2))
        load(server, "conv_net")
        assert placed(server, "conv_net") == ("torchscript", "0", "2", "measured")
        check_answers(server, "conv_net", "conv_net")

        write_plan(path, machine, tuned("conv_net", repository / "identity/1/model.pt"))
        load(server, "conv_net")
        assert placed(server, "conv_net") == ("torchscript", "0-1", "1", "automatic")
        assert len(server.logged(r"'conv_net' version 1 runs as configured: .*another file")) == 1

        write_plan(path, {**machine, "cores": 64.0}, tuned("conv_net", file, threads=2))
        load(server, "conv_net")
        load(server, "conv_net")
        assert placed(server, "conv_net") == ("torchscript", "0-1", "1", "automatic")
        assert len(server.logged(
            r"models run as configured: \S+ was measured on another machine \(64 cores")) == 1

        path.write_text("{")
        load(server, "conv_net")
        assert server.logged(rf"models run as configured, without a plan: {path}: not JSON")


def test_a_plan_that_is_named_takes_the_place_of_all(repository, here, tmp_path):
    machine, path = here
    file = repository / "identity/1/model.pt"
    write_plan(path, machine, tuned("identity", file, threads=2))
    named = tmp_path / "plan.json"
    write_plan(named, machine, tuned("identity", file, replicas=1, threads=1))
    flags = [*EXPLICIT, "--load-model", "identity", "--plan"]
    with Server(tmp_path, repositories=[repository], flags=[*flags, named]) as server:
        assert placed(server, "identity") == ("torchscript", "0", "1", "measured")
    with Server(tmp_path, repositories=[repository], flags=[*flags, "none"]) as server:
        assert placed(server, "identity") == ("torchscript", "0-1", "1", "automatic")
    for text, reason in (("{}", "'millrace_plan': missing"), ("", "not JSON")):
        named.write_text(text)
        said = refusal_to_start("--model-repository", repository, "--plan", named)
        assert f"--plan: {named}" in said and reason in said
    said = refusal_to_start("--model-repository", repository, "--plan", tmp_path / "missing.json")
    assert "missing.json: no such file" in said


def test_bfloat16_is_refused_on_a_cpu_that_has_none(tmp_path):
    flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        pytest.skip("this CPU computes in BF16")
    wish = Entry("mlp_pt", config="millrace { execution { bfloat16: true } }\n")
    with Server(tmp_path, [wish]) as server:
        error = client.error_of(lambda: server.stub.ModelInfer(client.request("mlp_pt")))
        assert error.code() == StatusCode.UNAVAILABLE
        assert re.search(r"compute in BF16 .*this CPU \(.*\) can't.*remove bfloat16",
                         error.details())
