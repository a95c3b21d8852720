# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Every row that the server answers is the one that torch computes in Python."""

import random

import client
import numpy
import pytest
import reference
import torch
from server_process import Entry, Server

BATCHED = [model.name for model in reference.MODELS
           if "good" in model.folders and model.max_batch_size and model.name != "versions"]
DTYPES = [name for name in BATCHED if name.startswith("dtypes_")]
SPLIT_ROWS = 19  # More than twice 8, the max_batch_size of most.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    entries = [Entry(model.name, replicas=1) for model in reference.MODELS
               if "good" in model.folders]
    with Server(tmp_path_factory.mktemp("server"), entries) as running:
        yield running


def infer(server, model, inputs, **more):
    return server.stub.ModelInfer(client.request(model, inputs, id="17", **more))


def test_every_good_model_is_ready(server):
    ready = {model.name for model in reference.MODELS if "good" in model.folders}
    assert len(ready) > 20
    assert {found[1] for found in server.logged(r"model '(\w+)' version \d+ serves after")} == ready


@pytest.mark.parametrize("model", BATCHED)
def test_one_row(server, model):
    inputs = reference.random_inputs(model, 1, seed=1)
    response = infer(server, model, inputs)
    client.assert_answers(response, model, inputs)
    assert (response.model_name, response.model_version, response.id) == (model, "1", "17")


@pytest.mark.parametrize("model", BATCHED)
def test_every_number_of_rows_up_to_a_full_batch_and_beyond(server, model):
    most = reference.model(model).max_batch_size
    for rows in [*range(2, min(most, 8) + 1), most - 1, most, most + 1, 2 * most + 3]:
        inputs = reference.random_inputs(model, rows, seed=rows)
        client.assert_answers(infer(server, model, inputs), model, inputs)


@pytest.mark.parametrize("model", DTYPES)
def test_extreme_values_pass_unchanged(server, model):
    dtype = reference.DTYPES[reference.model(model).inputs[0].dtype]
    if dtype == torch.bool:
        values = [True, False, True]
    elif dtype.is_floating_point:
        values = [torch.finfo(dtype).max, -float("inf"), torch.finfo(dtype).tiny]
    else:
        values = [torch.iinfo(dtype).max, torch.iinfo(dtype).min, 1]
    inputs = {"INPUT__0": torch.tensor([values], dtype=dtype)}
    assert torch.equal(client.outputs_of(infer(server, model, inputs))["OUTPUT__0"],
                       inputs["INPUT__0"])


@pytest.mark.parametrize("model", [name for name in DTYPES if not name.endswith("f16")
                                   and not name.endswith("fp16")])
def test_typed_contents_are_the_same_as_raw_bytes(server, model):
    inputs = reference.random_inputs(model, 3, seed=5)
    message = client.request(model, inputs)
    del message.raw_input_contents[:]
    dtype = message.inputs[0].datatype
    field = {"BOOL": "bool", "FP32": "fp32", "FP64": "fp64", "INT64": "int64", "UINT8": "uint"}
    getattr(message.inputs[0].contents, field.get(dtype, "int") + "_contents").extend(
        inputs["INPUT__0"].flatten().tolist())
    client.assert_answers(server.stub.ModelInfer(message), model, inputs)


def test_outputs_come_as_they_were_asked_for(server):
    inputs = reference.random_inputs("two_in_two_out", 3, seed=2)
    for outputs in (["doubled"], ["shifted"], ["doubled", "shifted"], ["shifted", "doubled"]):
        response = infer(server, "two_in_two_out", inputs, outputs=outputs)
        client.assert_answers(response, "two_in_two_out", inputs, outputs=outputs)
    response = infer(server, "list_out", torch_inputs := reference.random_inputs("list_out", 20),
                     outputs=["OUTPUT__2"])
    client.assert_answers(response, "list_out", torch_inputs, outputs=["OUTPUT__2"])


def test_inputs_may_come_in_any_order(server):
    inputs = reference.random_inputs("two_in_two_out", 2, seed=3)
    turned = dict(reversed(inputs.items()))
    assert list(turned) != list(inputs)
    client.assert_answers(infer(server, "two_in_two_out", turned), "two_in_two_out", inputs)


def test_versions_answer_for_themselves_and_the_latest_by_default(server):
    inputs = reference.random_inputs("versions", 4)
    for asked, answers in (("1", "1"), ("2", "2"), ("", "2")):
        response = infer(server, "versions", inputs, version=asked)
        assert response.model_version == answers
        client.assert_answers(response, "versions", inputs, version=answers)


def test_model_without_a_batch_dimension(server):
    inputs = reference.random_inputs("no_batch", seed=4)
    response = infer(server, "no_batch", inputs)
    assert list(response.outputs[0].shape) == [3, 2]
    client.assert_answers(response, "no_batch", inputs)
    stream = client.Stream(server.stub)
    many = [reference.random_inputs("no_batch", seed=seed) for seed in range(20)]
    stream.send(*(client.request("no_batch", each) for each in many))
    for each, answer in zip(many, stream.rest(), strict=True):
        client.assert_answers(answer.infer_response, "no_batch", each)


def test_empty_tensors(server):
    inputs = {"INPUT__0": torch.empty(3, 0)}
    response = infer(server, "dynamic", inputs)
    assert list(response.outputs[0].shape) == [3, 0]
    assert list(response.raw_output_contents) == [b""]


def test_mixed_shapes_and_rows_on_one_stream(server, seed):
    generator = random.Random(seed)
    many = [reference.random_inputs("dynamic", generator.randint(1, SPLIT_ROWS), seed=number,
                                    size=generator.choice([1, 2, 7, 100])) for number in range(60)]
    stream = client.Stream(server.stub)
    stream.send(*(client.request("dynamic", inputs, id=str(i)) for i, inputs in enumerate(many)))
    answers = stream.rest()
    assert client.ids(answers) == [str(i) for i in range(len(many))]
    for inputs, answer in zip(many, answers):
        client.assert_answers(answer.infer_response, "dynamic", inputs)


def test_rows_of_concurrent_requests_are_not_mixed_up(server, seed):
    """Requests of different sizes share batches; each gets its own rows back."""
    generator = random.Random(seed)
    streams, sent = [], []
    before = server.metrics()['millrace_batch_rows_count{model="tiny_mlp",version="1"}']
    for number in range(6):
        streams.append(client.Stream(server.stub))
        sent.append([reference.random_inputs("tiny_mlp", generator.randint(1, 40),
                                             seed=100 * number + i) for i in range(25)])
        streams[-1].send(*(client.request("tiny_mlp", inputs) for inputs in sent[-1]))
    for stream, inputs in zip(streams, sent):
        for each, answer in zip(inputs, stream.rest(), strict=True):
            client.assert_answers(answer.infer_response, "tiny_mlp", each)
    after = server.metrics()
    rows = sum(len(each["INPUT__0"]) for inputs in sent for each in inputs)
    assert after['millrace_batch_rows_sum{model="tiny_mlp",version="1"}'] >= rows
    assert after['millrace_batch_rows_count{model="tiny_mlp",version="1"}'] > before


def test_a_megabyte_in_and_out(server):
    inputs = {"INPUT__0": torch.ones(8, 40_000)}
    response = infer(server, "dynamic", inputs)
    numpy.testing.assert_array_equal(client.outputs_of(response)["OUTPUT__0"][5],
                                     numpy.arange(1, 40_001, dtype=numpy.float32))
