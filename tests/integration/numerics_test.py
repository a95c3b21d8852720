# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Warm-up data from files, NaN and infinity in answers, denormal numbers, and determinism."""

import io
import math
import threading

import client
import numpy as np
import pytest
import torch
import tritonclient.grpc
from grpc import StatusCode
from PIL import Image
from server_process import TEST_WORKER, Entry, Server, eventually, make_repository
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

WIDE = 200_000  # Elements of a row; libtorch splits so many over its threads.


class Reciprocal(torch.nn.Module):
    def forward(self, x):
        return 1 / x


class PutsBack(torch.nn.Module):
    """By an operation that libtorch calls not deterministic."""

    def forward(self, x):
        return x.clone().put_(torch.arange(x.numel()), x.flatten())


def write_script(repository, name, module, dims=4, dtype="FP32", more="", batch=8):
    (repository / name / "1").mkdir(parents=True)
    torch.jit.script(module.eval()).save(str(repository / name / "1" / "model.pt"))
    (repository / name / "config.pbtxt").write_text(
        f"max_batch_size: {batch}\n"
        f'input {{ name: "X" data_type: TYPE_{dtype} dims: {dims} }}\n'
        f'output {{ name: "Y" data_type: TYPE_{dtype} dims: {dims} }}\n'
        f"instance_group {{ kind: KIND_CPU count: 1 }}\n{more}")


def numerics(settings):
    return f"millrace {{ numerics {{ {settings} }} }}\n"


def threads(count):
    return (f'parameters {{ key: "INTRA_OP_THREAD_COUNT" value {{ string_value: "{count}" }} }}\n')


def warmup(file, rows=1, dims=4, dtype="FP32", name="X"):
    return (f'model_warmup {{ batch_size: {rows} inputs {{ key: "{name}" value {{ '
            f'data_type: TYPE_{dtype} dims: {dims} input_data_file: "{file}" }} }} }}\n')


def request(model, array):
    dtype = {np.float16: "FP16", np.float32: "FP32", np.float64: "FP64"}[array.dtype.type]
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name="X", datatype=dtype, shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return message


def infer(server, model, array):
    """The answer, and its values."""
    response = server.stub.ModelInfer(request(model, array))
    [raw] = response.raw_output_contents
    return response, np.frombuffer(raw, array.dtype).reshape(array.shape)


# ---- NaN and infinity ----

@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    repository = folder / "repository"
    for policy in ("PASS", "FLAG", "REFUSE"):
        write_script(repository, policy.lower(), Reciprocal(),
                     more=numerics(f"non_finite: {policy}"))
    for dtype in ("FP16", "FP64"):
        write_script(repository, f"flag_{dtype.lower()}", Reciprocal(), dtype=dtype,
                     more=numerics("non_finite: FLAG"))
    for policy in ("FLAG", "REFUSE"):  # In batches that gather while one runs.
        Entry("delay_flat", f"delay_{policy.lower()}", replicas=1,
              config=numerics(f"non_finite: {policy}")).write(repository)
    write_script(repository, "exact", Reciprocal(), WIDE, more=threads(2))
    write_script(repository, "flushed", Reciprocal(), WIDE,
                 more=threads(2) + numerics("flush_denormals: true"))
    write_script(repository, "unsure", PutsBack())
    with Server(folder, repositories=[repository], flags=["--worker", TEST_WORKER]) as running:
        yield running


def answers_with(server, model):
    return server.metric("millrace_non_finite_answers_total", model=model)


def test_pass_sends_what_the_model_returns(server):
    response, values = infer(server, "pass", np.float32([[0, 2, -0.0, math.nan]]))
    assert list(values[0][:3]) == [math.inf, 0.5, -math.inf] and math.isnan(values[0][3])
    assert "millrace_non_finite" not in response.parameters
    assert answers_with(server, "pass") == 0


def test_flag_tells_how_many_there_are(server):
    before = answers_with(server, "flag")
    response, values = infer(server, "flag", np.float32([[0, 2, 4, math.nan], [1, 2, 4, 8]]))
    assert response.parameters["millrace_non_finite"].int64_param == 2
    assert values[0][0] == math.inf and values[1][3] == 0.125
    response, _ = infer(server, "flag", np.float32([[1, 2, 4, 8]]))
    assert "millrace_non_finite" not in response.parameters
    assert answers_with(server, "flag") == before + 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_flag_takes_every_floating_point_type(server, dtype):
    model = f"flag_fp{8 * np.dtype(dtype).itemsize}"
    response, _ = infer(server, model, np.array([[0, -0.0, math.nan, 3]], dtype))
    assert response.parameters["millrace_non_finite"].int64_param == 3


def test_refuse_answers_an_error_in_place_of_the_values(server):
    before = answers_with(server, "refuse")
    message = request("refuse", np.float32([[0, 2, 4, 8]]))
    error = client.error_of(lambda: server.stub.ModelInfer(message))
    assert error.code() == StatusCode.INTERNAL
    assert "output 'Y' of model 'refuse' has 1 value that is NaN or infinite" in error.details()
    assert "millrace.numerics.non_finite" in error.details()
    _, values = infer(server, "refuse", np.float32([[1, 2, 4, 8]]))
    assert list(values[0]) == [1, 0.5, 0.25, 0.125]
    assert answers_with(server, "refuse") == before + 1
    assert server.metric("millrace_requests_total", model="refuse", code="INTERNAL") == 1


def test_a_stream_tells_both_in_band(server):
    stream = client.Stream(server.stub)
    for model in ("flag", "refuse"):
        stream.send(request(model, np.float32([[0, 0, 1, 1]])))
    flagged, refused = stream.rest()
    assert client.status_of(flagged) == StatusCode.OK
    assert client.status_of(refused) == StatusCode.INTERNAL
    for answer in (flagged, refused):
        assert answer.infer_response.parameters["millrace_non_finite"].int64_param == 2


@pytest.mark.parametrize("policy", ["flag", "refuse"])
def test_one_row_of_a_batch_is_its_own_requests_matter(server, policy):
    """tritonclient's requests share batches; every third one's row holds NaN."""
    model, count = f"delay_{policy}", 24
    batches = server.metric("millrace_execute_seconds_count", model=model)
    found, done = {}, threading.Semaphore(0)

    def take(number):
        def taken(result, error):
            found[number] = (result, error)
            done.release()
        return taken

    with tritonclient.grpc.InferenceServerClient(server.address) as stock:
        for number in range(count):
            tensor = tritonclient.grpc.InferInput("INPUT__0", [1, 4], "FP32")
            row = np.full((1, 4), math.nan if number % 3 == 0 else number, np.float32)
            tensor.set_data_from_numpy(row)
            stock.async_infer(model, [tensor], take(number))
        for _ in range(count):
            assert done.acquire(timeout=60)
    for number, (result, error) in found.items():
        if number % 3 and policy == "flag":
            assert "millrace_non_finite" not in result.get_response().parameters
        elif policy == "flag":
            assert result.get_response().parameters["millrace_non_finite"].int64_param == 4
        if number % 3:
            assert error is None and (result.as_numpy("OUTPUT__0") == number).all()
        elif policy == "refuse":
            assert isinstance(error, InferenceServerException)
            assert "4 values that are NaN or infinite" in error.message()
    assert server.metric("millrace_execute_seconds_count", model=model) - batches < count / 2


# ---- Denormal numbers ----

@pytest.mark.parametrize("model, smallest", [("exact", 5e-39), ("flushed", 0)])
def test_denormal_numbers_are_flushed_in_every_thread(server, model, smallest):
    row = np.full((1, WIDE), 2e38, np.float32)
    _, values = infer(server, model, row)
    assert values == pytest.approx(smallest, rel=1e-3, abs=0)


# ---- Determinism ----

def states(tmp_path, repository):
    """State and reason of each model of a server that serves this repository."""
    with Server(tmp_path, repositories=[repository]) as server:
        index = server.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
        return {model.name: (model.state, model.reason) for model in index.models}


def test_operation_that_isnt_deterministic_is_told_at_load(tmp_path, server):
    _, values = infer(server, "unsure", np.float32([[1, 2, 3, 4]]))
    assert list(values[0]) == [1, 2, 3, 4]
    write_script(tmp_path / "repository", "sure", PutsBack(), more=numerics("deterministic: true"))
    state, reason = states(tmp_path, tmp_path / "repository")["sure"]
    assert state == "UNAVAILABLE"
    assert "the config says deterministic, which the model can't promise" in reason
    assert "put_" in reason


def test_the_same_batch_gets_the_same_bits_in_every_replica(tmp_path):
    config = "millrace { numerics { deterministic: true } batching { check: UNCHECKED } }\n"
    with Server(tmp_path, [Entry("noisy", config=config)]) as server:
        inputs = {"INPUT__0": torch.ones(3, 4)}

        def bits():
            message = client.request("noisy", inputs)
            return server.stub.ModelInfer(message).raw_output_contents[0]

        first = bits()
        assert {bits() for _ in range(10)} == {first}
        for pid in server.replicas():
            server.signal_worker(pid)
        eventually(lambda: server.metric("millrace_ready_replicas") == 2)
        assert {bits() for _ in range(10)} == {first}


# ---- Warm-up data from files ----

class OnlyPositive(torch.nn.Module):
    """Raises on zeros, which a warm-up without data would run."""

    def forward(self, x):
        if bool((x <= 0).any()):
            raise ValueError("not positive")
        return x + 0


def test_model_is_warmed_with_data_from_a_file(tmp_path):
    repository = tmp_path / "repository"
    write_script(repository, "one", OnlyPositive(), more=warmup("row.raw", rows=3))
    write_script(repository, "all", OnlyPositive(), more=warmup("rows.raw", rows=3))
    for model, file, rows in (("one", "row.raw", 1), ("all", "rows.raw", 3)):
        (repository / model / "warmup").mkdir()
        (repository / model / "warmup" / file).write_bytes(np.ones((rows, 4), np.float32).tobytes())
    with Server(tmp_path, repositories=[repository]) as server:
        assert not server.logged("inconclusive"), "No run met zeros or random values."
        assert not server.logged("warmup is ignored")
        for model in ("one", "all"):
            infer(server, model, np.ones((2, 4), np.float32))


def test_data_that_the_model_raises_on_is_an_error(tmp_path):
    repository = tmp_path / "repository"
    write_script(repository, "model", OnlyPositive(), more=warmup("data"))
    (repository / "model" / "warmup").mkdir()
    (repository / "model" / "warmup" / "data").write_bytes(np.zeros(4, np.float32).tobytes())
    state, reason = states(tmp_path, repository)["model"]
    assert state == "UNAVAILABLE"
    assert "warming up with 1 rows" in reason and "not positive" in reason


def test_files_that_cant_be_are_told_by_name(tmp_path):
    repository = tmp_path / "repository"
    (tmp_path / "secret").write_bytes(bytes(16))
    for name in ("missing", "small", "escapes"):
        write_script(repository, name, OnlyPositive(), more=warmup("data"))
        (repository / name / "warmup").mkdir()
    (repository / "small" / "warmup" / "data").write_bytes(bytes(10))
    (repository / "escapes" / "warmup" / "data").symlink_to(tmp_path / "secret")
    models = states(tmp_path, repository)
    assert {state for state, _ in models.values()} == {"UNAVAILABLE"}
    assert "missing/warmup/data: no such file" in models["missing"][1]
    assert "small/warmup/data: 10 bytes came, expected 16" in models["small"][1]
    assert "escapes/warmup/data leads out of" in models["escapes"][1]


def test_input_with_a_transform_is_warmed_with_a_picture(tmp_path):
    config = ("millrace { transform { image { } } }\n"
              + warmup("picture.png", dims="[3, 48, 64]", name="INPUT__0"))
    repository = make_repository(tmp_path / "repository", [Entry("pixels", config=config)])
    folder = repository / "pixels" / "warmup"
    folder.mkdir()
    file = io.BytesIO()
    Image.new("RGB", (100, 80), (10, 20, 30)).save(file, "PNG")
    (folder / "picture.png").write_bytes(file.getvalue())
    with Server(tmp_path, repositories=[repository]) as server:
        assert server.metric("millrace_ready_replicas") == 2
    (folder / "picture.png").write_bytes(b"no picture")
    state, reason = states(tmp_path, repository)["pixels"]
    assert state == "UNAVAILABLE" and "warmup/picture.png: " in reason
