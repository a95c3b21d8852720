# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What `millrace compile` decides without torch: tensors, variants, the choice, the cache, the
version in a repository, the report."""

import json
import math
import os
import pathlib
import re
import subprocess
import sys
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("MILLRACE_BIN", ROOT / "build/bin")).parent
sys.path.insert(0, str(BUILD / "share/millrace/python"))

from millrace_compile.cache import Cache, key_of, parse_size
from millrace_compile.report import outcomes_json, table
from millrace_compile.repository import ModelFolder
from millrace_compile.tensors import (Signature, TensorSpec, UsageError, order_inputs, parse_input)
from millrace_compile.variants import Outcome, choose, choose_isa, parse_variants


def test_a_python_without_torch_can_say_so():
    subprocess.run([sys.executable, "-c", "import sys, millrace_compile.__main__\n"
                    "assert 'torch' not in sys.modules"], check=True, timeout=60,
                   env={**os.environ, "PYTHONPATH": str(BUILD / "share/millrace/python")})


# ---- Tensors ----


@pytest.mark.parametrize("text, spec", [
    ("3x224x224:FP32", TensorSpec("", "FP32", (3, 224, 224))),
    ("ids=128:int64", TensorSpec("ids", "INT64", (128,))),
    ("-1x80:BF16", TensorSpec("", "BF16", (-1, 80))),
    ("scale=:FP64", TensorSpec("scale", "FP64", ())),
])
def test_inputs_are_read(text, spec):
    assert parse_input(text) == spec


@pytest.mark.parametrize("text, said", [
    ("3x224x224", "expected a shape and a data type"),
    ("3*224:FP32", "'3*224' is no shape"),
    ("0x3:FP32", "sizes of 1 or more"),
    ("-2:FP32", "'-2' is no shape"),
    ("3:FLOAT", "'FLOAT' is no data type; expected one of BOOL, "),
    ("3:BYTES", "strings are no tensors of PyTorch"),
    ("x".join("12345678") + ":FP32", "8 dimensions; at most 7"),
    ("", "expected a shape"),
])
def test_bad_inputs_are_told(text, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        parse_input(text)


def specs(*texts):
    return [parse_input(text) for text in texts]


def test_inputs_go_to_arguments_in_order_or_by_name():
    assert [spec.name for spec in order_inputs(specs("1:FP32", "2:FP32"), ["a", "b", "c"], 2)] == [
        "a", "b"]
    assert [spec.dims for spec in order_inputs(specs("b=2:FP32", "a=1:FP32"), ["a", "b"], 2)] == [
        (1,), (2,)]


@pytest.mark.parametrize("texts, said", [
    ([], "--input is given 0 times, but forward() takes a, b, c"),
    (["1:FP32"], "--input is given 1 times"),
    (["1:FP32"] * 4, "--input is given 4 times"),
    (["a=1:FP32", "2:FP32"], "some --input have a name and some have none"),
    (["a=1:FP32", "a=2:FP32"], "two have the same"),
    (["a=1:FP32", "c=2:FP32"], "--input c=…: there is no such argument among the first 2"),
])
def test_inputs_that_fit_no_arguments_are_told(texts, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        order_inputs(specs(*texts), ["a", "b", "c"], 2)


SIGNATURE = Signature([TensorSpec("image", "FP32", (3, 32)), TensorSpec("ids", "INT64", (-1,))],
                      [TensorSpec("OUTPUT__0", "FP32", ())], 8)


def test_config_says_what_the_package_takes_and_how_many_threads_it_has():
    assert SIGNATURE.config_text(1) == (
        'max_batch_size: 8\n'
        'input [ { name: "image" data_type: TYPE_FP32 dims: [ 3, 32 ] } ]\n'
        'input [ { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] } ]\n'
        'output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [  ] } ]\n')
    assert SIGNATURE.config_text(2).endswith(
        'parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "2" } }\n')


# ---- Variants ----


def test_variants_are_read_once_each():
    names = [str(variant) for variant in parse_variants("plain,bf16+frozen,frozen+bf16,autotune")]
    assert names == ["plain", "frozen+bf16", "autotune"]
    [plain, frozen] = parse_variants("plain,frozen")
    assert plain.settings(2) == {"cpp.threads": 2, "aot_inductor.check_lowerbound": False}
    assert frozen.settings(1)["freezing"] is True


@pytest.mark.parametrize("text", ["", "plain,", "froze", "frozen+int8"])
def test_unknown_variants_are_told(text):
    with pytest.raises(UsageError, match="is no variant; expected plain, or any of frozen, "):
        parse_variants(text)


def test_instruction_set_is_the_best_or_the_one_named():
    assert choose_isa(None, ["avx512", "avx2"]) == "avx512"
    assert choose_isa("avx2", ["avx512", "avx2"]) == "avx2"
    with pytest.raises(UsageError, match="this machine lacks it.* Here it may be avx2"):
        choose_isa("avx512", ["avx2"])
    with pytest.raises(UsageError, match="no such instruction set is known"):
        choose_isa("sse", ["avx2"])


def outcome(name, ratios=None, trouble="", **more):
    [variant] = parse_variants(name)
    ratios = ratios or {}
    return Outcome(name, variant, trouble, error=0.0, ratios=ratios,
                   milliseconds={size: 1 / ratio for size, ratio in ratios.items()}, **more)


def test_fastest_that_agrees_is_kept():
    quick = outcome("plain", {1: 4.0, 8: 1.0})  # In the mean twice as fast.
    steady = outcome("frozen", {1: 2.1, 8: 2.1})
    wrong = outcome("autotune", trouble="output 'x' differs")
    assert choose([quick, steady, wrong]) is steady
    assert quick.speedup == pytest.approx(2.0)
    assert choose([wrong]) is None and choose([]) is None


def test_report_tells_what_was_measured_and_why_others_are_not_kept():
    rival = Outcome("torchscript", error=0.0, milliseconds={1: 2.0}, ratios={1: 1.0}, memory_mib=7.0)
    good = outcome("plain", {1: 4.0}, memory_mib=5.5, build_seconds=21.4)
    bad = outcome("frozen", trouble="output 'x' differs by 0.2")
    lines = table(rival, [good, bad], good).splitlines()
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[2].split()[:5] == ["plain", "0.0e+00", "0.25", "ms", "(4.00x)"]
    assert lines[3] == "frozen: not kept: output 'x' differs by 0.2"
    assert lines[4].startswith("The fastest that agrees is plain: 4.00 times as fast as torchscript")
    assert table(None, [bad], None) == lines[3]


def test_json_has_no_numbers_that_json_lacks():
    found = outcomes_json(None, [outcome("plain", {8: math.inf})])
    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert found["variants"][0]["memory_mib"] is None


# ---- The cache ----


def test_key_differs_where_any_part_does():
    keys = [key_of("weights", "2.13", "avx2"), key_of("weights", "2.13", "avx512"),
            key_of("weights", "2.12", "avx2"), key_of("other", "2.13", "avx2"),
            key_of("weights2.13", "avx2"), key_of("weights", "2.13avx2")]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of("weights", "2.13", "avx2")


def test_cache_gives_back_what_was_put_and_drops_what_is_unused_for_longest(tmp_path):
    cache = Cache(tmp_path / "cache", limit=250)
    file = tmp_path / "package"
    for number, name in enumerate("abc"):
        file.write_bytes(name.encode() * 100)
        cache.put(name, file)
        for kept in (tmp_path / "cache").glob("*.pt2"):  # So that no clock decides.
            if kept.stem == name:
                os.utime(kept, ns=(number, number))
        if name == "b":
            assert cache.take("a", tmp_path / "out")  # Used now; b is older.
    assert (tmp_path / "out").read_bytes() == b"a" * 100
    assert [cache.take(name, tmp_path / "out") for name in "abc"] == [True, False, True]
    file.write_bytes(b"d" * 251)
    cache.put("d", file)
    assert not cache.take("d", tmp_path / "out") and cache.take("a", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["a.pt2", "c.pt2"]


def test_sizes_are_read():
    assert [parse_size(text) for text in ("4G", "512m", "0", "x", "", "G", "-1")] == [
        4 << 30, 512 << 20, 0, None, None, None, None]


# ---- The repository ----


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "built.pt2"
    path.write_bytes(b"package")
    return path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_new_model_comes_with_its_config(tmp_path, package):
    folder = ModelFolder(tmp_path / "models/net")
    assert folder.max_batch_size() is None
    assert folder.add(package, "the config") == (1, tmp_path / "models/net/1/model.pt2")
    assert (tmp_path / "models/net/1/model.pt2").read_bytes() == b"package"
    assert (tmp_path / "models/net/config.pbtxt").read_text() == "the config"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["net"]


def test_next_version_is_one_above_the_highest_and_the_config_stays(tmp_path, package):
    write(tmp_path / "net/config.pbtxt", "max_batch_size: 4\n")
    for name in ("2/model.pt", "10/model.pt", "010/model.pt", "old/model.pt"):
        write(tmp_path / "net" / name, "")
    folder = ModelFolder(tmp_path / "net")
    assert folder.max_batch_size() == 4
    assert folder.add(package, "another config")[0] == 11
    assert (tmp_path / "net/config.pbtxt").read_text() == "max_batch_size: 4\n"
    assert not [path for path in (tmp_path / "net").iterdir() if path.name.startswith(".")]


def test_two_that_add_at_once_take_different_versions(tmp_path, package):
    write(tmp_path / "net/config.pbtxt", "max_batch_size: 4\n")
    added = []
    threads = [threading.Thread(target=lambda: added.append(
        ModelFolder(tmp_path / "net").add(package, "")[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == list(range(1, 9))
    assert all((tmp_path / f"net/{n}/model.pt2").read_bytes() == b"package" for n in added)


@pytest.mark.parametrize("config, said", [
    ('platform: "pytorch_libtorch"\nmax_batch_size: 8', 'says platform: "pytorch_libtorch"'),
    ('default_model_filename: "net.pt"\nmax_batch_size: 8', "remove it"),
    ('backend: "pytorch" default_model_filename: "net.pt" max_batch_size: 8', "says default_model"),
    ('name: "net" max_batch_size: 16', "says max_batch_size: 16"),
    ("max_batch_size: 16", "says max_batch_size: 16, but this package is made for 8"),
    ("", "says max_batch_size: 0, but this package is made for 8"),
])
def test_config_that_keeps_a_package_from_being_served_is_told(tmp_path, config, said):
    write(tmp_path / "net/config.pbtxt", config)
    with pytest.raises(UsageError, match=re.escape(said)):
        ModelFolder(tmp_path / "net").check(SIGNATURE)


def test_config_that_fits_is_accepted(tmp_path):
    write(tmp_path / "net/config.pbtxt", 'platform: "torch_aoti"\nmax_batch_size: 8')
    ModelFolder(tmp_path / "net").check(SIGNATURE)


def test_what_else_keeps_a_version_from_being_served_is_noted(tmp_path):
    write(tmp_path / "net/config.pbtxt", "version_policy { specific { versions: [ 1 ] } }")
    write(tmp_path / "net/SHA256SUMS", "")
    policy, sums = ModelFolder(tmp_path / "net").notes(2)
    assert "names its versions: add 2" in policy
    assert "must list 2/model.pt2" in sums


@pytest.mark.parametrize("name", ["-net", "a net", ".net", "n" * 129])
def test_folder_must_have_a_models_name(tmp_path, name):
    with pytest.raises(UsageError, match="is no name of a model"):
        ModelFolder(tmp_path / name)
