# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""`millrace inspect` over models of every kind: what it finds is written down, and a server that
loads what was written answers as torch does. What can't be served is told with the reason."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import zipfile
from typing import Callable, Dict, Sequence, Tuple

import client
import grpc
import hostile_models
import modules
import pytest
import reference
import torch
import torch.nn.functional as F
from server_process import BIN, MODELS, PATIENCE, Server, comm_of, eventually, stat_of
from torch import Tensor, nn
from tritonclient.grpc import service_pb2

# ---- Ten models ----


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                                    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class Recurrent(nn.Module):
    """The state after a sequence of any length."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        states, _ = self.lstm(frames)
        return states[:, -1]


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.split = nn.Linear(16, 48)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        q, k, v = self.split(x).chunk(3, dim=-1)
        return self.out(self.norm(x + F.scaled_dot_product_attention(q, k, v)))


class SeveralInputs(nn.Module):
    """The scale is a number for each row; the offset may be left out."""

    def forward(self, values: Tensor, ids: Tensor, scale: Tensor, offset: float = 0.5
                ) -> Tuple[Tensor, Tensor]:
        return values * scale.unsqueeze(1) + offset, ids.sum(1)


class DataDependent(nn.Module):
    """As many numbers as are large."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0.5]


class FewRows(nn.Module):
    """Takes some rows, but not as many as it is tried with at first."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) > 5:
            raise RuntimeError("five rows at most")
        return x * 2


@dataclasses.dataclass(frozen=True)
class Case:
    module: Callable[[], nn.Module]
    flags: Sequence[str]
    inputs: Dict[str, Tuple[str, Sequence[int]]]  # With the batch dimension.
    outputs: Dict[str, Tuple[str, Sequence[int]]]
    max_batch_size: int
    requests: Callable[[], Dict[str, Tensor]]
    says: str = "the same results in a batch as alone"
    rows_apart: bool = False  # What the model answers must be computed row by row.


CASES = {
    "convolutional": Case(
        Convolutional, ["--input", "3x16x16:FP32"], {"image": ("FP32", [-1, 3, 16, 16])},
        {"OUTPUT__0": ("FP32", [-1, 5])}, 8, lambda: {"image": torch.rand(3, 3, 16, 16)}),
    "recurrent": Case(
        Recurrent, ["--input", "frames:-1x8:FP32", "--max-batch", "4"],
        {"frames": ("FP32", [-1, -1, 8])}, {"OUTPUT__0": ("FP32", [-1, 6])}, 4,
        lambda: {"frames": torch.rand(2, 5, 8)}),
    "transformer": Case(
        Transformer, ["--input", "12:INT64"], {"tokens": ("INT64", [-1, 12])},
        {"OUTPUT__0": ("FP32", [-1, 12, 20])}, 8,
        lambda: {"tokens": torch.randint(0, 20, (2, 12))}),
    "several_inputs": Case(
        SeveralInputs, ["--input", "ids:2:INT64", "--input", "values:4:FP32", "--input", "FP32"],
        {"values": ("FP32", [-1, 4]), "ids": ("INT64", [-1, 2]), "scale": ("FP32", [-1])},
        {"OUTPUT__0": ("FP32", [-1, 4]), "OUTPUT__1": ("INT64", [-1])}, 8,
        lambda: {"values": torch.rand(3, 4), "ids": torch.randint(0, 9, (3, 2)),
                 "scale": torch.rand(3)}),
    "dict_output": Case(
        modules.DictOut, ["--input", "6:FP32"], {"x": ("FP32", [-1, 6])},
        {"total": ("FP32", [-1, 1]), "sorted": ("FP32", [-1, 6])}, 8,
        lambda: {"x": torch.rand(2, 6)}),
    "no_batch": Case(
        modules.Transposed, ["--input", "2x3:FP32"], {"matrix": ("FP32", [2, 3])},
        {"OUTPUT__0": ("FP32", [3, 2])}, 0, lambda: {"matrix": torch.rand(2, 3)},
        says="no batch dimension"),
    "not_batch_safe": Case(
        modules.Centred, ["--input", "4:FP32"], {"x": ("FP32", [-1, 4])},
        {"OUTPUT__0": ("FP32", [-1, 4])}, 1, lambda: {"x": torch.rand(3, 4)},
        says="other results in a batch than alone", rows_apart=True),
    "data_dependent": Case(
        DataDependent, ["--input", "32:FP32"], {"x": ("FP32", [32])},
        {"OUTPUT__0": ("FP32", [-1])}, 0, lambda: {"x": torch.rand(32)},
        says="depends on the values of the input"),
    "few_rows": Case(
        FewRows, ["--input", "4:FP32"], {"x": ("FP32", [-1, 4])},
        {"OUTPUT__0": ("FP32", [-1, 4])}, 8, lambda: {"x": torch.rand(3, 4)},
        says="warming up with invented inputs of 8 rows is inconclusive, the model raised"),
    "integer_input": Case(
        modules.Lookup, ["--input", "5:INT64"], {"ids": ("INT64", [-1, 5])},
        {"OUTPUT__0": ("FP32", [-1, 5, 4])}, 8, lambda: {"ids": torch.randint(0, 10, (2, 5))}),
}


def module_of(name):
    torch.manual_seed(7)
    return CASES[name].module().eval()


def inspect(*arguments):
    """Exit code, stdout and stderr."""
    if "--timeout" not in arguments:
        arguments = [*arguments, "--timeout", PATIENCE]
    ended = subprocess.run([BIN / "millrace", "inspect", *map(str, arguments)],
                           capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def at_once(calls):
    """The results of independent calls, by their names."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(call) for name, call in calls.items()}
        return {name: future.result() for name, future in futures.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inspect")


@pytest.fixture(scope="module")
def found(folder):
    """The models' inspections, after which the repository `served` holds them."""
    for name in CASES:
        torch.jit.script(module_of(name)).save(str(folder / f"{name}.pt"))
    results = at_once({
        name: lambda name=name: inspect(folder / f"{name}.pt", *CASES[name].flags, "--json",
                                        "--into", folder / "served" / name)
        for name in CASES})
    for name, (code, _, said) in results.items():
        assert code == 0, f"{name}: {said}"
    return {name: json.loads(out) for name, (_, out, _) in results.items()}


@pytest.fixture(scope="module")
def server(folder, found):
    # A package without config.pbtxt, and one of TorchScript, which tells too little.
    for name, source in (("package", "mlp_pt2/1/model.pt2"), ("script", "identity/1/model.pt")):
        (folder / "served" / name / "1").mkdir(parents=True)
        shutil.copy(MODELS / "good" / source, folder / "served" / name / "1")
    with Server(folder, repositories=[folder / "served"]) as running:
        yield running


def described(tensors):
    return {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in tensors}


@pytest.mark.parametrize("name", CASES)
def test_what_is_found_out(found, name):
    case, result = CASES[name], found[name]
    assert described(result["inputs"]) == {n: (t, list(s)) for n, (t, s) in case.inputs.items()}
    assert described(result["outputs"]) == {n: (t, list(s)) for n, (t, s) in case.outputs.items()}
    assert result["max_batch_size"] == case.max_batch_size
    assert case.says in json.dumps([result["batches"], result.get("notes", [])])
    assert result["rows_are_independent"] == (not case.rows_apart)
    assert not result["file_tells_its_inputs"]
    assert result["libtorch_version"] == torch.__version__.partition("+")[0]


def ask(server, model, inputs, dtypes):
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, tensor in inputs.items():
        request.inputs.add(name=name, datatype=dtypes[name], shape=tensor.shape)
        request.raw_input_contents.append(reference.to_bytes(tensor))
    return client.outputs_of(server.stub.ModelInfer(request))


def expected_of(name, inputs):
    case, module = CASES[name], module_of(name)
    with torch.inference_mode():
        rows = len(next(iter(inputs.values()))) if case.rows_apart else 0
        results = [module(**{n: t[i:i + 1] for n, t in inputs.items()}) for i in range(rows)]
        result = torch.cat(results) if results else module(**inputs)
    if isinstance(result, dict):
        return result
    return dict(zip(case.outputs, [result] if isinstance(result, Tensor) else result))


@pytest.mark.parametrize("name", CASES)
def test_server_serves_what_was_written(server, name):
    torch.manual_seed(1)
    inputs = CASES[name].requests()
    answer = ask(server, name, inputs, {n: t for n, (t, _) in CASES[name].inputs.items()})
    expected = expected_of(name, inputs)
    assert set(answer) == set(expected)
    for output, tensor in answer.items():
        torch.testing.assert_close(tensor, expected[output])


# ---- Packages ----


def test_package_tells_everything_itself(folder):
    code, out, said = inspect(MODELS / "good/mlp_pt2/1/model.pt2", "--json")
    assert code == 0, said
    result = json.loads(out)
    assert described(result["inputs"]) == {"INPUT__0": ("FP32", [-1, 64])}
    assert described(result["outputs"]) == {"OUTPUT__0": ("FP32", [-1, 10])}
    assert result["max_batch_size"] == 8 and result["file_tells_its_inputs"]
    assert result["rows_are_independent"] and result["instruction_set"]


def test_package_without_config_is_served_as_it_tells(server):
    inputs = reference.random_inputs("mlp_pt2", rows=5)
    answer = ask(server, "package", inputs, {"INPUT__0": "FP32"})
    torch.testing.assert_close(answer["OUTPUT__0"],
                               reference.outputs("mlp_pt2", inputs)["OUTPUT__0"])
    config = server.stub.ModelConfig(service_pb2.ModelConfigRequest(name="package")).config
    assert config.max_batch_size == 8
    assert list(config.input[0].dims) == [64] and list(config.output[0].dims) == [10]
    assert server.logged("model 'package' has no config.pbtxt and is served as .*model.pt2 tells")


def test_torchscript_without_config_is_refused_with_what_to_do(server):
    index = server.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest()).models
    reason, = (model.reason for model in index if model.name == "script")
    assert "config.pbtxt: no such file" in reason and "millrace inspect" in reason


# ---- What can't be served, and says why ----


def rewritten(source, to, change):
    """Copies an archive; `change` returns the new bytes of each file in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return to


def of_another_libtorch(name, code):
    """Code that calls a function which this libtorch doesn't have."""
    return code.replace(b"aoti_torch_empty_strided\0", b"aoti_torch_empty_stridex\0")


def for_another_cpu(name, text):
    return text.replace(b'"AOTI_CPU_ISA": "', b'"AOTI_CPU_ISA": "AVX1024 ')


def for_another_machine(name, text):
    return text.replace(b'"AOTI_MACHINE": "x86_64"', b'"AOTI_MACHINE": "s390x"')


class TakesText(nn.Module):
    def forward(self, text: str) -> Tensor:
        return torch.zeros(len(text))


class Hangs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool((x < 2).all()):
            x = x * 1
        return x


def scripted(module, path):
    torch.jit.script(module).save(str(path))


def lightning_checkpoint(path):
    torch.save({"epoch": 1, "pytorch-lightning_version": "2.5.0", "callbacks": {},
                "state_dict": Convolutional().state_dict(), "hyper_parameters": {}}, path)


def exported_program(path):
    torch.export.save(torch.export.export(Convolutional().eval(), (torch.zeros(2, 3, 16, 16),)),
                      path)


PACKAGE = MODELS / "good/mlp_pt2/1/model.pt2"
SCRIPT = MODELS / "good/identity/1/model.pt"
# Each file, how it is made, the flags, and what must be said.
REFUSED = {
    "cut_off.pt": (lambda path: path.write_bytes(SCRIPT.read_bytes()[:-400]), [], "cut off"),
    "empty.pt": (lambda path: path.write_bytes(b""), [], "it is empty"),
    "state_dict.pt": (lambda path: torch.save(Convolutional().state_dict(), path), [],
                      "state_dict"),
    "old_state_dict.pt": (lambda path: torch.save(Convolutional().state_dict(), path,
                                                  _use_new_zipfile_serialization=False), [],
                          "state_dict"),
    "pickled.pt": (lambda path: torch.save(Convolutional(), path), [],
                   "a module that torch.save has pickled"),
    "checkpoint.ckpt": (lightning_checkpoint, [], "Lightning checkpoint"),
    "net.onnx": (lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(64)),
                 [], "ONNX"),
    "exported.pt2": (exported_program, [], "aoti_compile_and_package"),
    "script.pt2": (lambda path: shutil.copy(SCRIPT, path), [], "name it model.pt"),
    "package.pt": (lambda path: shutil.copy(PACKAGE, path), [], "name it model.pt2"),
    "libtorch.pt2": (lambda path: rewritten(PACKAGE, path, of_another_libtorch), [],
                     f"another version of torch than that of the libtorch which is to run it, "
                     f"{torch.__version__.partition('+')[0]}"),
    "cpu.pt2": (lambda path: rewritten(PACKAGE, path, for_another_cpu), [], "lacks avx1024"),
    "machine.pt2": (lambda path: rewritten(PACKAGE, path, for_another_machine), [],
                    "architecture s390x"),
    "text.pt": (lambda path: scripted(TakesText(), path), [], "'text' of forward"),
    "silent.pt": (lambda path: shutil.copy(SCRIPT, path), [], "--input x:3x224x224:FP32"),
    "hangs.pt": (lambda path: scripted(Hangs(), path),
                 ["--input", "4:FP32", "--timeout", "5s"], "it hangs, or needs longer for this"),
    "crashes.pt": (lambda path: scripted(modules.CrashesAlways(), path), ["--input", "4:FP32"],
                   "signal 11"),
    "raises.pt": (lambda path: scripted(Convolutional().eval(), path), ["--input", "5x9x9:FP32"],
                  "to have 3 channels"),
    "unknown.pt": (lambda path: shutil.copy(SCRIPT, path), ["--input", "y:4:FP32"],
                   "the model takes x"),
    "dims.pt2": (lambda path: shutil.copy(PACKAGE, path), ["--input", "65:FP32"],
                 "was compiled for FP32 [64]"),
    "rows.pt2": (lambda path: shutil.copy(PACKAGE, path), ["--max-batch", "9"],
                 "takes at most 8 rows"),
}


@pytest.fixture(scope="module")
def refusals(folder):
    (folder / "refused").mkdir()
    calls = {}
    for name, (make, flags, _) in REFUSED.items():
        path = folder / "refused" / name
        make(path)
        calls[name] = lambda path=path, flags=flags: inspect(path, *flags)
    return at_once(calls)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cant_be_served_says_why(refusals, name):
    code, out, said = refusals[name]
    assert code == 3, out + said
    assert out == ""
    assert REFUSED[name][2] in said
    assert name in said  # Which file it is about.


# ---- Inspections that are given up ----


@pytest.fixture(scope="module")
def spinning(folder):
    """A package whose code spins when it is loaded."""
    hostile_models.write_package(folder / "hostile", folder / "secret", "spins",
                                 when_loaded="SPINS_WHEN_LOADED")
    return folder / "hostile/spins/1/model.pt2"


def inspectors(parent):
    """The inspectors that this process has started."""
    running = [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in running
            if comm_of(pid) == "inspector" and stat_of(pid)[1] == str(parent)]


@pytest.fixture
def scratch():
    """A temporary folder that workers, which are nobody, reach; those of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="millrace-inspect-test-") as made:
        folder = pathlib.Path(made)
        folder.chmod(0o711)
        yield folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_inspection_that_is_interrupted_ends_and_leaves_nothing(spinning, scratch, number):
    process = subprocess.Popen([BIN / "millrace", "inspect", spinning, "--timeout", "10m"],
                               env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.PIPE)
    eventually(lambda: inspectors(process.pid))
    running = inspectors(process.pid)
    assert list(scratch.iterdir())
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == -number, said
    assert list(scratch.iterdir()) == []
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in running)


def test_inspection_ends_with_the_call_that_wanted_it_and_with_the_server(spinning, tmp_path):
    repository = tmp_path / "inspected"
    (repository / "spins/1").mkdir(parents=True)
    shutil.copy(spinning, repository / "spins/1")
    with Server(tmp_path, ["identity"], repositories=[repository],
                flags=["--model-control", "explicit"]) as running:
        def load(name, seconds):
            return running.operator.RepositoryModelLoad(
                service_pb2.RepositoryModelLoadRequest(model_name=name), timeout=seconds)
        error = client.error_of(lambda: load("spins", 3))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        load("identity", PATIENCE)  # It waits for the inspection, which has ended.
        assert inspectors(running.pid) == []
        going_on = running.operator.RepositoryModelLoad.future(
            service_pb2.RepositoryModelLoadRequest(model_name="spins"))
        eventually(lambda: inspectors(running.pid))
        begin = time.monotonic()
        running.stop()
        assert time.monotonic() - begin < 20
        assert client.error_of(going_on.result).code() == grpc.StatusCode.UNAVAILABLE


def test_arguments_that_make_no_sense_are_told(folder, found):
    model = folder / "convolutional.pt"
    for arguments, text in (
            ([folder], "is a directory"),
            ([folder / "nowhere.pt"], "No such file"),
            ([model, "--input", "3x16x16"], "no data type"),
            ([model, "--input", "text:STRING"], "strings are no tensors"),
            ([model, "--into", folder / ".hidden"], "can't name a model"),
            ([model, "--into", folder / "served/no_batch"], "--force"),
            ([model, "--no-such-flag"], "no-such-flag"),
            ([], "model")):
        code, out, said = inspect(*arguments)
        assert (code, out) == (1, ""), said
        assert text in said


def test_nothing_is_overwritten_unless_that_is_said(folder, found):
    place = folder / "again"
    flags = [folder / "dict_output.pt", "--input", "6:FP32", "--into", place]
    (place / "1").mkdir(parents=True)
    (place / "config.pbtxt").write_text("mine")
    code, _, said = inspect(*flags)
    assert code == 1 and "config.pbtxt exists" in said
    assert (place / "config.pbtxt").read_text() == "mine"
    assert not (place / "1/model.pt").exists()
    code, out, said = inspect(*flags, "--force")
    assert code == 0 and "wrote" in out, said
    assert "max_batch_size: 8" in (place / "config.pbtxt").read_text()
    assert (place / "1/model.pt").read_bytes() == (folder / "dict_output.pt").read_bytes()


def test_people_read_what_was_found_and_the_config(folder, found):
    code, out, said = inspect(folder / "dict_output.pt", "--input", "6:FP32")
    assert code == 0, said
    assert "forward(Tensor x)" in out
    assert 'output [ { name: "sorted" data_type: TYPE_FP32 dims: [ 6 ] } ]' in out


def test_help_is_in_the_name_of_the_command_line():
    code, out, _ = inspect("--help")
    assert code == 0 and "millrace inspect" in out and "--into" in out
