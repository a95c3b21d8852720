# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Models that are loaded and unloaded while the server runs: by calls, and by what changes in the
repository."""

import json
import os
import pathlib
import shutil
import time

import client
import pytest
import torch
from changing_repository import (EXPLICIT, STEP, WATCH, Repository, answer, config_of, index, load,
                                 start, state, unload)
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from memory_group import MemoryGroup
from server_process import MODELS, Server, eventually
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


# ---- Calls ----

def test_tritonclient_loads_and_unloads(tmp_path, repository):
    repository.put("m", 1)
    repository.put("other", 1, source=2)
    with start(tmp_path, repository, *EXPLICIT) as server:
        stock = triton.InferenceServerClient(server.operator_address)
        assert not stock.is_model_ready("m") and server.processes() == [server.pid]
        assert "not loaded" in index(server)["m", ""].reason
        stock.load_model("m")
        assert stock.is_model_ready("m") and answer(server) == (STEP, "1")
        assert state(server, "other", "") == "UNAVAILABLE"
        assert stock.get_model_repository_index(as_json=True)["models"][0]["state"] == "READY"
        stock.unload_model("m")
        assert not stock.is_model_ready("m")
        eventually(lambda: state(server) == "UNAVAILABLE")
        assert index(server)["m", "1"].reason == "unloaded"
        assert client.error_of(lambda: answer(server)).code() == StatusCode.UNAVAILABLE
        assert server.processes() == [server.pid]
        with pytest.raises(InferenceServerException, match="nobody"):
            stock.load_model("nobody")
        with pytest.raises(InferenceServerException, match="nobody"):
            stock.unload_model("nobody")


def test_models_that_are_named_are_loaded_at_start(tmp_path, repository):
    for name in ("a", "b", "c"):
        repository.put(name, 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "a", "--load-model", "c",
               "--load-model", "missing") as server:
        assert [name for (name, _), entry in index(server).items()
                if entry.state == "READY"] == ["a", "c"]
        assert server.logged("'missing'.*no repository has it")


def test_star_loads_all_at_start(tmp_path, repository):
    for name in ("a", "b"):
        repository.put(name, 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        assert {entry.state for entry in index(server).values()} == {"READY"}


def test_load_takes_what_is_new_on_disk_and_reloads_what_is_loaded(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        repository.put("later", 1, source=3)
        load(server, "later")
        assert answer(server, name="later") == (3 * STEP, "1")
        repository.put("m", 1, source=2)
        assert answer(server) == (STEP, "1")  # Until it is told.
        load(server, "m")
        assert answer(server) == (2 * STEP, "1")
        repository.put("m", 2, source=3)
        load(server, "m")
        assert answer(server) == (3 * STEP, "2")
        eventually(lambda: ("m", "1") not in index(server))
        assert client.error_of(lambda: answer(server, version="1")).code() == StatusCode.NOT_FOUND


def test_config_of_a_load_takes_the_place_of_the_files(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        stock = triton.InferenceServerClient(server.operator_address)
        config = stock.get_model_config("m", as_json=True)["config"]
        assert config["max_batch_size"] == 8
        stock.load_model("m", config=json.dumps({**config, "max_batch_size": 2}))
        assert stock.get_model_config("m").config.max_batch_size == 2
        stock.load_model("m")
        assert stock.get_model_config("m").config.max_batch_size == 8


@pytest.mark.parametrize("parameters, named", [
    ({"config": "no json"}, "config"), ({"config": '{"max_batch_sizes": 1}'}, "max_batch_sizes"),
    ({"config": '{"max_batch_size": 1}'}, "input"), ({"file:1/model.pt": "x"}, "file:1/model.pt"),
    ({"guess": "x"}, "guess")])
def test_load_with_wrong_parameters_changes_nothing(tmp_path_factory, parameters, named):
    server = explicit_server(tmp_path_factory)
    error = client.error_of(lambda: load(server, "m", **parameters))
    assert error.code() == StatusCode.INVALID_ARGUMENT and named in error.details()
    assert answer(server) == (STEP, "1") and not index(server)["m", "1"].reason


def explicit_server(tmp_path_factory, started=[]):
    """One server for the tests that change nothing."""
    if not started:
        folder = tmp_path_factory.mktemp("explicit")
        repository = Repository(folder)
        repository.put("m", 1)
        started.append(Server(folder, repositories=[repository.path],
                              flags=[*EXPLICIT, "--load-model", "*"]))
    return started[0]


@pytest.mark.parametrize("flags", [[], WATCH])
def test_calls_are_refused_where_models_are_controlled_otherwise(tmp_path, repository, flags):
    repository.put("m", 1)
    with start(tmp_path, repository, *flags) as server:
        for call in (load, unload):
            error = client.error_of(lambda call=call: call(server, "m"))
            assert error.code() == StatusCode.FAILED_PRECONDITION
            assert "--model-control" in error.details()
        assert answer(server) == (STEP, "1")


def test_load_doesnt_hold_up_other_calls(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--io-threads", "1") as server:
        going_on = server.operator.RepositoryModelLoad.future(
            service_pb2.RepositoryModelLoadRequest(model_name="m"))
        assert eventually(lambda: state(server) == "LOADING" or going_on.done())
        assert not going_on.done()
        going_on.result()
        assert state(server) == "READY"


def test_stopped_server_answers_loads_that_go_on(tmp_path, repository):
    repository.put("m", 1)
    server = start(tmp_path, repository, *EXPLICIT)
    going_on = server.operator.RepositoryModelLoad.future(
        service_pb2.RepositoryModelLoadRequest(model_name="m"))
    eventually(lambda: state(server) == "LOADING")
    server.stop()
    assert client.error_of(going_on.result).code() == StatusCode.UNAVAILABLE


def test_health_follows_loads_and_unloads(tmp_path, repository):
    repository.put("m", 1)
    serving = health_pb2.HealthCheckResponse
    with start(tmp_path, repository, *EXPLICIT) as server:
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(
            health_pb2.HealthCheckRequest(service="m"))
        seen = [next(watch).status]
        load(server, "m")
        seen.append(next(watch).status)
        unload(server, "m")
        seen.append(next(watch).status)
        watch.cancel()
    assert seen == [serving.NOT_SERVING, serving.SERVING, serving.NOT_SERVING]


# ---- Bad versions ----

@pytest.mark.parametrize("how, reason", [
    ("crash", "signal"), ("half", "TorchScript"), ("config", "config.pbtxt"), ("outputs", "FP64")])
def test_version_that_cant_be_served_leaves_the_old_one_serving(tmp_path, repository, how, reason):
    repository.put("m", 1)
    with start(tmp_path, repository, *EXPLICIT, "--load-model", "*") as server:
        processes = len(server.processes())
        if how == "crash":
            repository.put("m", 2, model="crashes_always")
        elif how == "half":
            repository.put("m", 2, source=2)
            os.truncate(repository.path / "m" / "2" / "model.pt", 1 << 20)
        elif how == "config":
            repository.configure("m", "max_batch_size: many")
        else:
            repository.configure("m", config_of("release").replace(
                'output [ { name: "OUTPUT__0" data_type: TYPE_FP32',
                'output [ { name: "OUTPUT__0" data_type: TYPE_FP64'))
        error = client.error_of(lambda: load(server, "m"))
        assert reason in error.details()
        assert answer(server) == (STEP, "1") and state(server) == "READY"
        assert any(reason in entry.reason for entry in index(server).values())
        assert [line for line in server.log if reason in line and " E " in line]
        eventually(lambda: len(server.processes()) == processes)


@pytest.mark.parametrize("wrong, reason", [
    ("output [ { name: \"OUTPUT__0\" data_type: TYPE_FP64 dims: [ -1 ] } ]", "FP64"),
    ("output [ { name: \"OUTPUT__0\" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]", "[-1,-1,-1]"),
    ("output [ { name: \"a\" data_type: TYPE_FP32 dims: [ -1 ] },"
     "         { name: \"b\" data_type: TYPE_FP32 dims: [ -1 ] } ]", "2 outputs")])
def test_outputs_are_compared_with_the_config_also_where_dims_are_open(
        tmp_path, repository, wrong, reason):
    shutil.copytree(MODELS / "good" / "dynamic" / "1", repository.path / "m" / "1")
    (repository.path / "m" / "config.pbtxt").write_text(
        "max_batch_size: 8 input [ { name: \"INPUT__0\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
        + wrong)
    with start(tmp_path, repository) as server:
        assert state(server) == "UNAVAILABLE" and reason in index(server)["m", "1"].reason


# ---- Rows that may not share a batch ----

def three_rows(server):
    """What `centred` answers to three different rows in one request."""
    inputs = {"INPUT__0": torch.arange(12, dtype=torch.float32).reshape(3, 4)}
    request = client.request("m", inputs, as_model="centred", parameters={"millrace_timings": True})
    response = server.stub.ModelInfer(request)
    return client.outputs_of(response)["OUTPUT__0"]


def test_model_that_isnt_batch_invariant_runs_one_row_at_a_time_and_says_so(tmp_path, repository):
    repository.put("m", 1, model="centred")
    with start(tmp_path, repository) as server:
        entry = index(server)["m", "1"]
        assert entry.state == "READY" and "one row at a time" in entry.reason
        assert "OUTPUT__0" in entry.reason
        assert three_rows(server).abs().max() == 0  # Each row's mean is the row itself.
        assert server.metric("millrace_batch_rows_count", model="m") == 3


def test_model_that_isnt_batch_invariant_is_refused_where_the_config_says_so(tmp_path, repository):
    repository.put("m", 1, model="centred", config=config_of(
        "centred", more="millrace { batching { check: REFUSE_MODEL } }\n"))
    with start(tmp_path, repository) as server:
        assert state(server) == "UNAVAILABLE"
        assert "other results in a batch" in index(server)["m", "1"].reason


def test_model_that_isnt_to_be_checked_is_batched(tmp_path, repository):
    repository.put("m", 1, model="centred", config=config_of(
        "centred", more="millrace { batching { check: UNCHECKED } }\n"))
    with start(tmp_path, repository) as server:
        assert not index(server)["m", "1"].reason
        assert three_rows(server)[0].tolist() == [-4] * 4


def test_model_that_is_never_twice_the_same_cant_be_judged_and_is_batched(tmp_path, repository):
    repository.put("m", 1, model="noisy")
    with start(tmp_path, repository) as server:
        assert state(server) == "READY" and not index(server)["m", "1"].reason
        assert server.logged("inconclusive.*each time")


class CentredWhereWide(torch.nn.Module):
    """Looks at the other rows where they are of more than four columns."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True) if x.shape[1] > 4 else x


class RanksRows(torch.nn.Module):
    """Tells in integers how many rows of the batch are greater."""

    def forward(self, x):
        sums = x.sum(1)
        return (sums.unsqueeze(0) > sums.unsqueeze(1)).sum(1, keepdim=True)


def put_script(repository, module, config):
    folder = repository.path / "m" / "1"
    folder.mkdir(parents=True)
    torch.jit.script(module).save(str(folder / "model.pt"))
    repository.configure("m", config)


def test_declared_samples_show_that_a_model_isnt_batch_invariant(tmp_path, repository):
    samples = "".join(f"""\
model_warmup [ {{ name: "{width}" batch_size: 1 inputs {{
  key: "INPUT__0" value {{ data_type: TYPE_FP32 dims: [ {width} ] random_data: true }} }} }} ]
""" for width in (4, 8))
    put_script(repository, CentredWhereWide(), config_of("centred", more=samples).replace(
        "dims: [ 4 ] } ]", "dims: [ -1 ] } ]"))
    with start(tmp_path, repository) as server:
        entry = index(server)["m", "1"]
        assert entry.state == "READY" and "one row at a time" in entry.reason, entry


def test_integers_that_differ_in_a_batch_are_told_and_judged_by_nobody(tmp_path, repository):
    put_script(repository, RanksRows(), """\
max_batch_size: 8
input [ { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUTPUT__0" data_type: TYPE_INT64 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
""")
    with start(tmp_path, repository) as server:
        assert state(server) == "READY" and not index(server)["m", "1"].reason
        assert server.logged("inconclusive.*integers differ")


# ---- Memory ----

def test_swap_for_which_there_is_no_memory(tmp_path, repository):
    repository.put("m", 1)  # 32 MB of weights, and a version of a few bytes takes its place.
    group = MemoryGroup()
    if group.why_not:
        pytest.skip(group.why_not)
    server = start(tmp_path, repository, *EXPLICIT, "--load-model", "*", prefix=group.prefix())
    needed = sum(own_memory(pid) for pid in server.processes() if pid != server.pid)
    repository.put("m", 2, model="noisy")
    group.leave(needed - (8 << 20))
    error = client.error_of(lambda: load(server, "m"))
    assert error.code() == StatusCode.RESOURCE_EXHAUSTED
    assert "MiB" in error.details() and "IN_PLACE_IF_NEEDED" in error.details()
    assert answer(server) == (STEP, "1")
    repository.configure("m", config_of(
        "release", more="millrace { lifecycle { swap: IN_PLACE_IF_NEEDED } }\n"))
    load(server, "m")
    assert state(server, version="2") == "READY" and ("m", "1") not in index(server)
    assert server.logged("that one ends first")
    server.stop()
    group.remove()


def own_memory(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines()
                           if line.startswith("Pss_Anon:")))


# ---- Watching ----

def test_watched_repository_is_followed(tmp_path, repository):
    repository.put("m", 1)
    with start(tmp_path, repository, *WATCH) as server:
        assert answer(server) == (STEP, "1")
        repository.put("m", 2, source=2)
        eventually(lambda: answer(server) == (2 * STEP, "2"))
        repository.configure("m", config_of("release", more=(
            "version_policy { all { } }\n")))
        eventually(lambda: state(server, version="1") == "READY")
        assert answer(server, version="1") == (STEP, "1")
        assert answer(server) == (2 * STEP, "2")
        repository.put("m", 1, source=3)
        eventually(lambda: answer(server, version="1") == (3 * STEP, "1"))
        repository.put("n", 5, source=1)
        eventually(lambda: state(server, "n", "5") == "READY")
        (repository.path / "m").rename(tmp_path / "gone")
        eventually(lambda: not [name for name, _ in index(server) if name == "m"])
        assert client.error_of(lambda: answer(server)).code() == StatusCode.NOT_FOUND
        assert answer(server, name="n") == (STEP, "5")
        assert len(server.processes()) == 3


def test_model_that_is_copied_slowly_is_loaded_when_it_is_whole(tmp_path, repository):
    repository.put("m", 1)
    whole = (MODELS / "lifecycle" / "release" / "2" / "model.pt").read_bytes()
    with start(tmp_path, repository, *WATCH) as server:
        folder = repository.path / "m" / "2"
        folder.mkdir()
        with open(folder / "model.pt", "wb", buffering=0) as file:
            for begin in range(0, len(whole), len(whole) // 8):
                file.write(whole[begin:begin + len(whole) // 8])
                time.sleep(0.1)
                assert answer(server) == (STEP, "1")
        eventually(lambda: answer(server) == (2 * STEP, "2"))


def test_half_copied_model_is_tried_again_when_it_is_whole(tmp_path, repository):
    repository.put("m", 1)
    whole = (MODELS / "lifecycle" / "release" / "2" / "model.pt").read_bytes()
    with start(tmp_path, repository, *WATCH) as server:
        folder = repository.path / "m" / "2"
        folder.mkdir()
        (folder / "model.pt").write_bytes(whole[:len(whole) // 2])
        eventually(lambda: state(server, version="2") == "UNAVAILABLE")
        eventually(lambda: "TorchScript" in index(server)["m", "2"].reason)
        assert answer(server) == (STEP, "1")
        (folder / "model.pt").write_bytes(whole)
        eventually(lambda: answer(server) == (2 * STEP, "2"))


def test_swapped_link_is_followed_as_kubernetes_swaps_it(tmp_path, repository):
    for number in (1, 2):
        volume = repository.path / f"..{number}" / "m"
        shutil.copytree(MODELS / "lifecycle" / "release" / str(number), volume / "1")
        (volume / "config.pbtxt").write_text(config_of("release"))
    (repository.path / "..data").symlink_to("..1")
    (repository.path / "m").symlink_to("..data/m")
    with start(tmp_path, repository, *WATCH) as server:
        assert answer(server) == (STEP, "1")
        (repository.path / "..new").symlink_to("..2")
        (repository.path / "..new").rename(repository.path / "..data")
        eventually(lambda: answer(server) == (2 * STEP, "1"))
