# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A request that can't be right is refused with what came and what was expected, and harms nobody
else: not its stream, not its neighbours, not the server."""

import client
import grpc
import pytest
import reference
import torch
from grpc import StatusCode
from server_process import Server
from tritonclient.grpc import service_pb2


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    entries = ["identity", "two_in_two_out", "dynamic", "no_batch", "int_embedding"]
    with Server(tmp_path_factory.mktemp("server"), entries) as running:
        yield running


def good(id="good"):
    return client.request("identity", id=id)


def changed(change, model="identity"):
    """A good request that `change` has made a bad one of."""
    message = client.request(model, id="bad")
    change(message)
    return message


def set_shape(message, *shape):
    message.inputs[0].shape[:] = shape


def with_shape(*shape, model="identity"):
    return changed(lambda message: set_shape(message, *shape), model)


def rename_input(message):
    message.inputs[0].name = "INPUT__7"


def set_dtype(message):
    message.inputs[0].datatype = "FP64"


def set_no_dtype(message):
    message.inputs[0].datatype = "FLOAT"


def cut_bytes(message):
    message.raw_input_contents[0] = message.raw_input_contents[0][:-1]


def add_bytes(message):
    message.raw_input_contents[0] += b"\0" * 64


def drop_raw(message):
    del message.raw_input_contents[:]


def drop_second_input(message):
    del message.inputs[1]
    del message.raw_input_contents[1]


def repeat_input(message):
    message.inputs.add().CopyFrom(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])


def add_contents_to_raw(message):
    message.inputs[0].contents.fp32_contents.append(1)


def different_rows(message):
    message.inputs[0].shape[0] = 2
    message.raw_input_contents[0] *= 2


def ask_for_unknown_output(message):
    message.outputs.add(name="OUTPUT__9")


def set_unknown_parameter(message):
    message.parameters["triton_unheard_of"].bool_param = True


def set_huge_rows_without_bytes(message):
    set_shape(message, 1 << 40, 16)


INVALID = StatusCode.INVALID_ARGUMENT
BAD = {
    # What is sent, the code, and what the message must name: what came and what was expected.
    "unknown model": (changed(lambda m: setattr(m, "model_name", "nobody")),
                      StatusCode.NOT_FOUND, ["nobody"]),
    "no model": (changed(lambda m: setattr(m, "model_name", "")), StatusCode.NOT_FOUND, ["''"]),
    "unknown version": (changed(lambda m: setattr(m, "model_version", "3")),
                        StatusCode.NOT_FOUND, ["identity", "'3'"]),
    "version that is no number": (changed(lambda m: setattr(m, "model_version", "latest")),
                                  StatusCode.NOT_FOUND, ["identity", "'latest'"]),
    "name": (changed(rename_input), INVALID, ["INPUT__7", "INPUT__0"]),
    "dtype": (changed(set_dtype), INVALID, ["INPUT__0", "FP64", "FP32"]),
    "dtype that is none": (changed(set_no_dtype), INVALID, ["INPUT__0", "FLOAT"]),
    "shape": (with_shape(1, 15), INVALID, ["INPUT__0", "[1,15]", "[-1,16]"]),
    "rank": (with_shape(16), INVALID, ["INPUT__0", "[16]", "[-1,16]"]),
    "no shape": (with_shape(), INVALID, ["INPUT__0", "[]", "[-1,16]"]),
    "zero rows": (with_shape(0, 16), INVALID, ["INPUT__0", "[0,16]"]),
    "negative rows": (with_shape(-1, 16), INVALID, ["INPUT__0", "[-1,16]"]),
    "zero dimension": (with_shape(1, 0), INVALID, ["INPUT__0", "[1,0]", "[-1,16]"]),
    "more rows than bytes": (with_shape(2, 16), INVALID, ["INPUT__0", "64", "128"]),
    "huge rows": (changed(set_huge_rows_without_bytes), INVALID, ["INPUT__0", "64"]),
    "rows that overflow": (with_shape((1 << 63) - 1, 16), INVALID, ["INPUT__0"]),
    "dims that overflow": (with_shape(1 << 32, 1 << 32, model="dynamic"), INVALID, ["INPUT__0"]),
    "too few bytes": (changed(cut_bytes), INVALID, ["INPUT__0", "63", "64"]),
    "too many bytes": (changed(add_bytes), INVALID, ["INPUT__0", "128", "64"]),
    "no bytes": (changed(drop_raw), INVALID, ["0 entries of raw_input_contents", "1 inputs"]),
    "missing input": (changed(drop_second_input, "two_in_two_out"), INVALID, ["values"]),
    "input twice": (changed(repeat_input), INVALID, ["INPUT__0"]),
    "typed and raw": (changed(add_contents_to_raw), INVALID, ["raw_input_contents"]),
    "inputs of different rows": (changed(different_rows, "two_in_two_out"), INVALID, ["2", "1"]),
    "unknown output": (changed(ask_for_unknown_output), INVALID, ["OUTPUT__9", "OUTPUT__0"]),
    "unknown parameter": (changed(set_unknown_parameter), INVALID, ["triton_unheard_of"]),
    "batch dimension where none is": (with_shape(1, 2, 3, model="no_batch"), INVALID,
                                      ["matrix", "[1,2,3]", "[2,3]"]),
    "nothing": (service_pb2.ModelInferRequest(), StatusCode.NOT_FOUND, []),
}


@pytest.mark.parametrize("what", BAD)
def test_unary_call_says_what_is_wrong(server, what):
    message, code, named = BAD[what]
    error = client.error_of(lambda: server.stub.ModelInfer(message))
    assert error.code() == code, error.details()
    for part in named:
        assert part in error.details()
    assert server.stub.ModelInfer(good()).id == "good"


def test_stream_answers_errors_in_their_place_and_goes_on(server):
    stream = client.Stream(server.stub)
    expected = []
    for number, (message, code, _) in enumerate(BAD.values()):
        message = service_pb2.ModelInferRequest.FromString(message.SerializeToString())
        message.id = f"bad {number}"
        stream.send(message, good(f"good {number}"))
        expected += [(f"bad {number}", code), (f"good {number}", StatusCode.OK)]
    answers = stream.rest()
    assert [(a.infer_response.id, client.status_of(a)) for a in answers] == expected
    for answer, (_, _, named) in zip(answers[::2], BAD.values()):
        assert all(part in answer.error_message for part in named), answer.error_message
    for answer in answers:
        assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_in_band_error_names_the_model_that_was_asked(server):
    stream = client.Stream(server.stub)
    stream.send(with_shape(1, 15), changed(lambda m: setattr(m, "model_name", "nobody")))
    known, unknown = stream.rest()
    assert known.infer_response.model_name == "identity"
    assert known.infer_response.model_version == "1"
    assert unknown.infer_response.model_name == "nobody"
    assert not known.infer_response.outputs and not known.infer_response.raw_output_contents


def test_triton_grpc_error_ends_the_stream_at_the_first_error(server):
    stream = client.Stream(server.stub, triton_grpc_error="true")
    stream.send(good("0"), good("1"), with_shape(1, 15), good("2"))
    assert client.ids(stream.answers(2)) == ["0", "1"]
    error = client.error_of(stream.answer)
    assert error.code() == INVALID
    assert "[1,15]" in error.details()


def test_raising_model_fails_only_the_request_that_makes_it_raise(server):
    stream = client.Stream(server.stub)
    outside = {"ids": torch.full((1, 5), 10)}
    sent = [reference.random_inputs("int_embedding", seed=seed) for seed in range(12)]
    for number, inputs in enumerate(sent):
        stream.send(client.request("int_embedding", outside if number % 4 == 3 else inputs))
    for number, answer in enumerate(stream.rest()):
        if number % 4 == 3:
            assert client.status_of(answer) == StatusCode.INTERNAL
            assert "index out of range" in answer.error_message
        else:
            client.assert_answers(answer.infer_response, "int_embedding", sent[number])


def test_bytes_that_are_no_message_are_refused(server):
    call = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for garbage in (b"\xff" * 100, b"\x0a\x7fshort", b"\x2a\x02\x08"):
        assert client.error_of(lambda sent=garbage: call(sent)).code() == INVALID


def test_message_over_the_limit_is_refused_and_the_server_goes_on(server):
    # A channel of its own: gRPC itself refuses it, before any of our code.
    inputs = {"INPUT__0": torch.zeros(1, 17 << 20)}  # 68 MiB.
    with server.new_channel() as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer",
                                   request_serializer=lambda message: message.SerializeToString())
        error = client.error_of(lambda: call(client.request("dynamic", inputs)))
    assert error.code() == StatusCode.RESOURCE_EXHAUSTED
    assert server.stub.ModelInfer(good()).id == "good"


def test_bad_requests_are_counted_and_none_is_left_behind(server):
    before = server.metric("millrace_rejections_total", model="identity", reason="invalid")
    unknown = server.metric("millrace_unknown_model_requests_total")
    for message in (with_shape(1, 15), changed(cut_bytes),
                    changed(lambda m: setattr(m, "model_name", "nobody"))):
        client.error_of(lambda sent=message: server.stub.ModelInfer(sent))
    assert server.metric("millrace_rejections_total", model="identity",
                         reason="invalid") == before + 2
    assert server.metric("millrace_unknown_model_requests_total") == unknown + 1
    assert server.metric("millrace_in_flight_requests") == 0
    assert server.metric("millrace_replica_restarts_total") == 0


def test_metadata_that_is_wrong_ends_the_stream_at_once(server):
    for metadata in ({"millrace_window": "many"}, {"millrace_window": "0"},
                     {"millrace_overflow": "newest"}):
        stream = client.Stream(server.stub, **metadata)
        error = client.error_of(stream.answer)
        assert isinstance(error, grpc.RpcError) and error.code() == INVALID
        stream.half_close()
