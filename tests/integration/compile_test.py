# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""`millrace compile`: one real compilation, and what else can become of a model."""

import json
import os
import shutil
import subprocess
import sys

import numpy
import pytest
import torch
import tritonclient.grpc as grpcclient
from server_process import BIN, Server, eventually

sys.path.insert(0, str(BIN.parent / "share/millrace/python"))

import millrace_compile.__main__ as millrace_compile
from millrace_compile import samples, source
from millrace_compile.tensors import Signature, TensorSpec, UsageError

NETS = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self, seed):
        torch.manual_seed(seed)
        super().__init__(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))

def net():
    return Net(1)

def other_net():
    return Net(2)

class Branches(torch.nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1

class FixedBatch(torch.nn.Module):
    def forward(self, x):
        return x.reshape(4, 4, -1).sum(1) if x.shape[0] == 8 else x

class RowsLost(torch.nn.Module):
    def forward(self, x):
        return x.mean(0)

class Noise(torch.nn.Module):
    def forward(self, x):
        return "noise", x

class Two(torch.nn.Module):
    def forward(self, image, ids, scale=None):
        return {"sum": image + ids.sum(1, keepdim=True), "mean": ids.float().mean(1)}

class Convolution(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))

def raises():
    raise ValueError("the weights aren't there")

def takes_a_path(path):
    return None

number = 3
"""
FLAGS = ["--variants", "plain", "--even-if-slower"]
NET = ["compiled_nets:net", "--input", "16:FP32", *FLAGS]


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """The folder of a module compiled_nets.py, which can be imported."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "compiled_nets.py").write_text(NETS)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def compile_model(nets, cache, *arguments, code=0, **environment):
    """Runs the command line, in the folder of the nets."""
    ended = subprocess.run(
        [str(BIN / "millrace"), "compile", *map(str, arguments)], capture_output=True, text=True,
        timeout=400, cwd=nets, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "MILLRACE_PYTHON": sys.executable, "XDG_CACHE_HOME": str(cache),
             **environment})
    assert ended.returncode == code, ended.stderr
    return ended


@pytest.fixture(scope="module")
def compiled(nets, cache):
    """The only real compilation but one: what it said, as JSON. The package is in the cache since, in a file,
    and in a repository as a model that wasn't there before."""
    return json.loads(compile_model(nets, cache, *NET, "--output", nets / "net.pt2", "--into",
                                    nets / "models/new", "--json").stdout)


@pytest.fixture
def said(nets, cache, monkeypatch, capsys):
    """Runs it in this process, and returns its exit code and what it said."""
    def run(*arguments):
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
        code = millrace_compile.main([str(argument) for argument in arguments])
        return code, "".join(capsys.readouterr())
    return run


def infer(server, model, values):
    tensor = grpcclient.InferInput("input", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    with grpcclient.InferenceServerClient(server.address) as client:
        answer = client.infer(model, [tensor], client_timeout=60)
    return answer.get_response().model_version, answer.as_numpy("OUTPUT__0")


# ---- What is compiled ----


def test_report_tells_time_memory_and_accuracy(nets, compiled):
    [variant] = compiled["variants"]
    assert (compiled["kept"], variant["trouble"]) == ("plain", "")
    assert compiled["rival"]["name"] == "torchscript"
    for measured in (variant, compiled["rival"]):
        assert sorted(measured["milliseconds"]) == ["1", "2", "8"]
        assert min(measured["milliseconds"].values()) > 0
        assert measured["error"] < 1e-5
    assert variant["build_seconds"] > 1 and variant["build_mib"] > 50 and variant["file_mib"] > 0.01
    assert compiled["written"] == [str(nets / "net.pt2"), str(nets / "models/new/1/model.pt2")]


def test_convolution_of_sixteen_rows_takes_fewer_too(nets, tmp_path):
    said = json.loads(compile_model(nets, tmp_path, "compiled_nets:Convolution", "--input", "3x8x8:FP32",
                                    "--max-batch-size", 16, *FLAGS, "--json", "--output",
                                    tmp_path / "convolution.pt2").stdout)
    [variant] = said["variants"]
    assert variant["trouble"] == ""
    assert sorted(variant["milliseconds"]) == ["1", "16", "2"]


def test_watching_server_swaps_to_the_compiled_version(nets, cache, compiled, tmp_path):
    from compiled_nets import net
    module = net().eval()
    folder = nets / "models/net"
    (folder / "1").mkdir(parents=True)
    torch.jit.script(module).save(str(folder / "1/model.pt"))
    (folder / "config.pbtxt").write_text(
        "max_batch_size: 8\n"
        'input [ { name: "input" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
        'output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n")
    values = numpy.random.default_rng(1).standard_normal((3, 16), numpy.float32)
    with Server(tmp_path, repositories=[nets / "models"],
                flags=["--model-control", "watch", "--watch-settle", "100ms"]) as server:
        version, before = infer(server, "net", values)
        assert version == "1"
        said = compile_model(nets, cache, *NET, "--into", folder)
        assert "plain was compiled before" in said.stderr and "cached" in said.stdout
        eventually(lambda: infer(server, "net", values)[0] == "2", "the server didn't swap")
        _, after = infer(server, "net", values)
        _, new = infer(server, "new", values)  # With the config that came with it.
    numpy.testing.assert_allclose(before, module(torch.from_numpy(values)).detach(), rtol=1e-4,
                                  atol=1e-6)
    numpy.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)
    numpy.testing.assert_array_equal(new, after)


def test_package_that_disagrees_or_breaks_is_never_kept(cache, compiled, said, tmp_path, monkeypatch):
    [right] = (cache / "millrace/compiled").glob("*.pt2")
    keys = []

    def remembered(*parts):
        keys.append(key_of(*parts))
        return keys[-1]
    key_of = millrace_compile.key_of
    monkeypatch.setattr(millrace_compile, "key_of", remembered)
    other = ["compiled_nets:other_net", *NET[1:], "--into", tmp_path / "net", "--budget", "1s"]
    assert said(*other)[0] == 3  # Asks the cache, and finds no time for compiling.

    shutil.copyfile(right, right.with_name(f"{keys[0]}.pt2"))  # It has the weights of another.
    code, text = said(*other)
    assert code == 3 and "nothing is kept" in text
    assert "plain: not kept: in a batch of 1, output 'OUTPUT__0' differs from the original by" in text
    shutil.copyfile(__file__, right.with_name(f"{keys[0]}.pt2"))
    code, text = said(*other)
    assert code == 3 and "plain: not kept: running it failed: " in text
    assert not (tmp_path / "net").exists()


def test_disagreement_is_told_with_its_size():
    wanted, near, far = torch.tensor([1.0, -4.0]), torch.tensor([1.0, -4.001]), torch.tensor([1.0, -3.0])
    assert samples.disagreement([near], [wanted], ["x"], False, None)[1] == ""
    assert samples.disagreement([far], [wanted], ["x"], False, None) == (
        0.25, "'x' differs from the original by 0.25 of its largest value; at most 0.001 is allowed")
    assert samples.disagreement([far], [wanted], ["x"], False, 0.3)[1] == ""
    nan, infinite = torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])
    assert samples.distance(nan, nan) == samples.distance(infinite, infinite) == 0
    assert samples.distance(nan, infinite) == samples.distance(wanted, nan) == float("inf")
    assert samples.distance(infinite, -infinite) == float("inf")
    whole = torch.tensor([1, 2])
    assert samples.disagreement([whole + 1], [whole], ["n"], True, None)[1] == (
        "'n' has other whole numbers than the original")
    assert "'n' is torch.float32 [2], the original torch.int64 [2]" in samples.disagreement(
        [whole.float()], [whole], ["n"], False, None)[1]
    assert samples.disagreement([], [whole], ["n"], False, None)[1].startswith("0 outputs came")


# ---- What can't be compiled ----


@pytest.mark.parametrize("arguments, message", [
    (["compiled_nets:net"], "--input is given 0 times, but forward() takes input"),
    (["compiled_nets", "--input", "16:FP32"], "is neither a file nor an entry; expected package.module:"),
    (["no_nets:net", "--input", "16:FP32"], "there is no Python module 'no_nets'"),
    (["compiled_nets:not", "--input", "16:FP32"], "has no 'not'; it has Net, net, other_net, "),
    (["compiled_nets:number", "--input", "16:FP32"], "is of the type int; expected what returns"),
    (["compiled_nets:raises", "--input", "16:FP32"],
     "raised ValueError: the weights aren't there; it is called without arguments"),
    (["compiled_nets:takes_a_path", "--input", "16:FP32"], "it is called without arguments"),
    (["compiled_nets:net", "--input", "17:FP32"],
     "the module raised on inputs of the shape [1, 17]: RuntimeError: mat1 and mat2 shapes cannot be"),
    (["compiled_nets:net", "--input", "16:INT64"], "the module raised on inputs"),
    (["compiled_nets:net", "--input", "-1:FP64"], "the module raised on inputs"),
    (["compiled_nets:Branches", "--input", "4:FP32"],
     "Its code goes by what is in a tensor, which compiled code can't: choose with torch.where"),
    (["compiled_nets:FixedBatch", "--input", "4:FP32", "--max-batch-size", "8"],
     "Its code takes the size of a batch or another dim for a fixed number"),
    (["compiled_nets:RowsLost", "--input", "4:FP32"],
     "output 'OUTPUT__0' has the shape [4] for 8 rows; expected as many rows as the inputs have"),
    (["compiled_nets:Noise", "--input", "4:FP32"], "only tensors of BOOL"),
    ([*NET, "--isa", "mmx"], "--isa mmx: no such instruction set is known"),
    ([*NET, "--samples", "/nowhere.npz"], "--samples /nowhere.npz can't be read as .npz"),
    ([*NET, "--budget", "1"], "--budget: '1' came, expected a time such as 90s"),
    ([*NET, "--threads", "0"], "--threads: '0' came, expected a number of 1 or more"),
    ([*NET, "--output", "net.so"], "expected a name that ends in .pt2"),
    ([*NET, "--nonsense"], "unrecognized arguments: --nonsense; see millrace compile --help"),
])
def test_what_is_wrong_is_told(said, arguments, message):
    code, err = said(*arguments)
    assert code == 1
    assert message in err.splitlines()[-1]


def test_other_files_are_told_apart(nets, compiled, said, tmp_path):
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "script.pt"))
    (tmp_path / "text").write_text("This is no model.")
    for file, message in ((nets / "net.pt2", "is a package that is compiled already"),
                          (tmp_path / "script.pt", "is TorchScript, which can't be exported"),
                          (tmp_path / "text", "is no exported program")):
        code, err = said(file)
        assert code == 1 and message in err


def test_missing_tools_are_told(said, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, err = said(*NET)
    assert code == 1 and "there is no C++ compiler 'no-such-compiler'" in err
    monkeypatch.setattr(millrace_compile.importlib.util, "find_spec", lambda name: None)
    code, err = said(*NET)
    assert code == 1 and "has no torch, which compiling takes" in err


def test_python_without_torch_is_told(nets, cache, tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" -S "$@"\n')
    bare.chmod(0o755)
    ended = compile_model(nets, cache, *NET, code=1, MILLRACE_PYTHON=str(bare))
    assert "has no torch, which compiling takes; name one that has in MILLRACE_PYTHON" in ended.stderr


# ---- Signatures ----


def test_signature_of_a_module_has_its_names_and_open_dims(nets):
    from millrace_compile.tensors import parse_input
    found = source.load("compiled_nets:Two", [parse_input("ids=-1:INT64"), parse_input("image=5:FP32")], 4)
    assert found.signature == Signature(
        [TensorSpec("image", "FP32", (5,)), TensorSpec("ids", "INT64", (-1,))],
        [TensorSpec("sum", "FP32", (5,)), TensorSpec("mean", "FP32", ())], 4)
    assert found.batch_sizes() == [1, 2, 4]


def test_exported_program_says_itself_what_it_takes(nets, tmp_path):
    from compiled_nets import net
    file = tmp_path / "net.pt2"

    def save(**limits):
        rows = torch.export.Dim("rows", **limits)
        torch.export.save(torch.export.export(net().eval(), (torch.zeros(4, 16),),
                                              dynamic_shapes=({0: rows},) if limits else None), file)
    save(min=1, max=6)
    found = source.load(str(file), [], None)
    assert found.signature == Signature([TensorSpec("input", "FP32", (16,))],
                                        [TensorSpec("OUTPUT__0", "FP32", (4,))], 6)
    with pytest.raises(UsageError, match="was exported for at most 6 rows"):
        source.load(str(file), [], 7)
    with pytest.raises(UsageError, match="leave out --input"):
        source.load(str(file), [TensorSpec("", "FP32", (16,))], None)
    save(min=3, max=6)
    with pytest.raises(UsageError, match="for batches of 3 rows or more, and a server sends single"):
        source.load(str(file), [], None)
    save()
    assert source.load(str(file), [], None).signature.max_batch_size == 0
    assert source.load(str(file), [], None).signature.inputs[0].dims == (4, 16)
    with pytest.raises(UsageError, match="isn't one dynamic dim of all of them"):
        source.load(str(file), [], 4)


class Nested(torch.nn.Module):
    def forward(self, x, more=None):
        if more is None:
            return x[0] + x[1]
        return x + (more["a"] if isinstance(more, dict) else more)


@pytest.mark.parametrize("args, kwargs, message", [
    ((torch.zeros(2),), {"more": torch.zeros(2)}, "was exported with more in kwargs"),
    ((torch.zeros(2),), {"more": {"a": torch.zeros(2)}}, "was exported with more in kwargs"),
    ((torch.zeros(2), {"a": torch.zeros(2)}), {}, "argument 2 of .* is a dict that holds 1 values"),
    (([torch.zeros(2), torch.zeros(2)],), {}, "argument 1 of .* is a list that holds 2 values"),
    (((torch.zeros(2), torch.zeros(2)),), {}, "argument 1 of .* is a tuple that holds 2 values"),
])
def test_exported_program_whose_arguments_are_no_plain_tensors_is_refused(tmp_path, args, kwargs,
                                                                          message):
    file = tmp_path / "nested.pt2"
    torch.export.save(torch.export.export(Nested(), args, kwargs), file)
    with pytest.raises(UsageError, match=message):
        source.load(str(file), [], None)


def test_digest_differs_with_weights_shapes_and_code(nets):
    def digest(entry, batch=8, text="16:FP32"):
        from millrace_compile.tensors import parse_input
        return source.load(f"compiled_nets:{entry}", [parse_input(text)], batch).digest()
    assert digest("net") == digest("net")
    assert len({digest("net"), digest("other_net"), digest("net", 4), digest("net", 8, "3x16:FP32")}) == 4


def test_samples_are_taken_by_name_and_repeated_to_fill_a_batch(tmp_path):
    signature = Signature([TensorSpec("a", "FP32", (2,)), TensorSpec("n", "INT64", ())], [], 8)
    file = tmp_path / "rows.npz"
    numpy.savez(file, n=numpy.arange(3), a=numpy.arange(6.0).reshape(3, 2))
    given = samples.read_samples(file, signature)
    rows = samples.given_rows(given, 5)
    assert rows[1].tolist() == [0, 1, 2, 0, 1] and rows[0].dtype == torch.float32
    for arrays, message in (
            ({"a": numpy.zeros((3, 2))}, "has a; expected an array for each of a, n"),
            ({"a": numpy.zeros((3, 4)), "n": numpy.zeros(3, int)}, "'a' is float64 \\[3, 4\\]; expected"),
            ({"a": numpy.zeros((0, 2)), "n": numpy.zeros(3, int)}, "'a' is float64"),
            ({"a": numpy.zeros((3, 2)), "n": numpy.array(["x"] * 3)}, "'n' is <U1")):
        numpy.savez(file, **arrays)
        with pytest.raises(UsageError, match=message):
            samples.read_samples(file, signature)
