# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The stock client of Triton, in every way it can be used: sync, async, asyncio, and streams."""

import asyncio
import queue

import numpy as np
import pytest
import reference
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as aioclient
from server_process import MODELS, Entry, Server
from tritonclient.utils import InferenceServerException

CALLS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    entries = ["identity", "two_in_two_out", "versions", "raises",
               Entry("tiny_mlp",
                     config='parameters { key: "owner" value { string_value: "us" } }\n')]
    with Server(tmp_path_factory.mktemp("server"), entries,
                repositories=[MODELS / "bad"]) as running:
        yield running


@pytest.fixture
def client(server):
    with grpcclient.InferenceServerClient(server.address) as connected:
        yield connected


def numbers(value, rows=1):
    return np.full((rows, 16), value, dtype=np.float32)


def inputs_of(array, module=grpcclient):
    tensor = module.InferInput("INPUT__0", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]


def taken(answers, count):
    """The next answers of a stream or of async calls, in the order in which they came."""
    return [answers.get(timeout=60) for _ in range(count)]


def test_server_is_live_ready_and_says_what_it_is(client):
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name == "millrace" and metadata.version
    assert "statistics" in metadata.extensions


def test_models_are_ready_or_not(client):
    assert client.is_model_ready("identity") and client.is_model_ready("versions", "1")
    assert not client.is_model_ready("broken")
    with pytest.raises(InferenceServerException) as refused:
        client.get_model_metadata("nobody")
    assert refused.value.status() == "StatusCode.NOT_FOUND"


def test_metadata(client):
    metadata = client.get_model_metadata("two_in_two_out", as_json=True)
    assert metadata["name"] == "two_in_two_out" and metadata["versions"] == ["1"]
    assert metadata["platform"] == "pytorch_libtorch"
    assert metadata["inputs"] == [{"name": "ids", "datatype": "INT64", "shape": ["-1", "2"]},
                                  {"name": "values", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert [output["name"] for output in metadata["outputs"]] == ["shifted", "doubled"]
    assert client.get_model_metadata("versions").versions == ["1", "2"]


def test_config_has_what_clients_read(client):
    config = client.get_model_config("tiny_mlp", as_json=True)["config"]
    assert config["name"] == "tiny_mlp" and config["max_batch_size"] == 32
    assert config["input"][0]["data_type"] == "TYPE_FP32" and config["input"][0]["dims"] == ["32"]
    assert config["output"][0]["name"] == "OUTPUT__0"
    assert config["dynamic_batching"]["preferred_batch_size"] == [8, 16]
    assert config["parameters"]["owner"]["string_value"] == "us"
    assert config["backend"] or config["platform"]


def test_index_lists_every_model_with_its_state(client):
    states = {(model.name, model.version): model.state
              for model in client.get_model_repository_index().models}
    assert states["identity", "1"] == states["versions", "2"] == "READY"
    assert {name for (name, _), state in states.items() if state == "UNAVAILABLE"} == {
        path.name for path in (MODELS / "bad").iterdir()}


def test_infer(client):
    result = client.infer("identity", inputs_of(numbers(7, rows=3)), request_id="seven",
                          outputs=[grpcclient.InferRequestedOutput("OUTPUT__0")],
                          client_timeout=60)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT__0"), numbers(7, rows=3))
    assert result.get_response().id == "seven"
    assert result.get_output("OUTPUT__0").datatype == "FP32"


def test_infer_with_two_inputs_and_outputs(client):
    given = {name: tensor.numpy() for name, tensor in
             reference.random_inputs("two_in_two_out", 5).items()}
    inputs = []
    for name, dtype in (("values", "FP32"), ("ids", "INT64")):
        inputs.append(grpcclient.InferInput(name, given[name].shape, dtype))
        inputs[-1].set_data_from_numpy(given[name])
    result = client.infer("two_in_two_out", inputs)
    np.testing.assert_array_equal(result.as_numpy("doubled"), 2 * given["ids"])
    np.testing.assert_allclose(result.as_numpy("shifted"),
                               given["values"] + given["ids"].sum(1, keepdims=True), rtol=1e-6)


def test_infer_says_what_is_wrong(client):
    with pytest.raises(InferenceServerException) as refused:
        client.infer("identity", inputs_of(np.zeros((1, 17), np.float32)))
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "[1,17]" in refused.value.message()


def test_compressed_requests_are_understood(client):
    for algorithm in ("gzip", "deflate"):
        result = client.infer("identity", inputs_of(numbers(3)), compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT__0"), numbers(3))


def test_async_infer(client):
    answers = queue.Queue()
    for i in range(CALLS):
        client.async_infer("identity", inputs_of(numbers(i)), request_id=str(i),
                           callback=lambda result, error: answers.put((result, error)))
    found = {}
    for result, error in taken(answers, CALLS):
        assert error is None
        found[result.get_response().id] = result.as_numpy("OUTPUT__0")[0, 0]
    assert found == {str(i): i for i in range(CALLS)}


def test_stream_keeps_the_order_with_errors_in_their_place(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for i in range(CALLS):
        bad = i % 10 == 9
        array = np.zeros((1, 3), np.float32) if bad else numbers(i)
        client.async_stream_infer("identity", inputs_of(array), request_id=str(i),
                                  enable_empty_final_response=True)
    for i, (result, error) in enumerate(taken(answers, CALLS)):
        if i % 10 == 9:
            assert "[1,3]" in str(error)
        else:
            assert error is None and result.get_response().id == str(i)
            assert result.get_response().parameters["triton_final_response"].bool_param
            np.testing.assert_array_equal(result.as_numpy("OUTPUT__0"), numbers(i))
    client.stop_stream()


def test_stream_is_stopped_by_cancelling(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for i in range(CALLS):
        client.async_stream_infer("identity", inputs_of(numbers(i)), request_id=str(i))
    taken(answers, 1)
    client.stop_stream(cancel_requests=True)
    result = client.infer("identity", inputs_of(numbers(1)))
    assert result.as_numpy("OUTPUT__0")[0, 0] == 1


def test_asyncio(server):
    async def run():
        async with aioclient.InferenceServerClient(server.address) as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*(
                client.infer("identity", inputs_of(numbers(i), aioclient), request_id=str(i))
                for i in range(CALLS)))
            for i, result in enumerate(results):
                np.testing.assert_array_equal(result.as_numpy("OUTPUT__0"), numbers(i))

            async def requests():
                for i in range(CALLS):
                    yield {"model_name": "raises" if i == 5 else "identity",
                           "inputs": inputs_of(numbers(i), aioclient), "request_id": str(i)}

            seen = []
            async for result, error in client.stream_infer(requests()):
                assert (error is None) == (len(seen) != 5)
                seen.append("5" if error else result.get_response().id)
            assert seen == [str(i) for i in range(CALLS)]
    asyncio.run(run())


def test_statistics_count_what_was_asked(client):
    def statistics():
        stats, = client.get_inference_statistics("versions", "1").model_stats
        return stats

    before = statistics()
    array = np.ones((2, 4), np.float32)
    for _ in range(5):
        client.infer("versions", inputs_of(array), model_version="1")
    with pytest.raises(InferenceServerException):
        client.infer("versions", inputs_of(np.ones((2, 5), np.float32)), model_version="1")
    after = statistics()
    assert (after.name, after.version) == ("versions", "1")
    assert after.inference_count - before.inference_count == 10
    assert 1 <= after.execution_count - before.execution_count <= 5
    stats, earlier = after.inference_stats, before.inference_stats
    assert stats.success.count - earlier.success.count == 5
    assert stats.fail.count - earlier.fail.count == 1
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(stats, part).count - getattr(earlier, part).count == 5
    assert stats.success.ns >= stats.compute_infer.ns > 0
    assert sum(batch.compute_infer.count for batch in after.batch_stats) == after.execution_count
    assert after.last_inference > 1_600_000_000_000
    everything = client.get_inference_statistics().model_stats
    assert {("identity", "1"), ("versions", "1"), ("versions", "2")} <= {
        (model.name, model.version) for model in everything}
