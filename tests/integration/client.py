# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Raw requests and streams: just the messages, so that tests may also send what no client would."""

import queue

import grpc
import reference
import torch
from tritonclient.grpc import service_pb2


def request(model, inputs=None, *, id="", version="", outputs=(), parameters=None, as_model=None):
    """A request of the test model `as_model` (default: `model`) with `inputs` as tensors by name;
    by default random ones of one row."""
    inputs = reference.random_inputs(as_model or model) if inputs is None else inputs
    specs = {tensor.name: tensor for tensor in reference.model(as_model or model).inputs}
    message = service_pb2.ModelInferRequest(model_name=model, model_version=version, id=id)
    for name, tensor in inputs.items():
        message.inputs.add(name=name, datatype=specs[name].dtype, shape=tensor.shape)
        message.raw_input_contents.append(reference.to_bytes(tensor))
    for name in outputs:
        message.outputs.add(name=name)
    for key, value in (parameters or {}).items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(message.parameters[key], kind, value)
    return message


def numbered(model, number, *, rows=1, as_model=None, **more):
    """A request whose id and every input element say which one it is; `model` takes FP32."""
    inputs = {name: torch.full_like(tensor, number) for name, tensor in
              reference.random_inputs(as_model or model, rows).items()}
    return request(model, inputs, id=str(number), as_model=as_model, **more)


def outputs_of(response):
    """The tensors of a ModelInferResponse by their names."""
    assert len(response.raw_output_contents) == len(response.outputs)
    return {tensor.name: reference.from_bytes(raw, tensor.datatype, tensor.shape)
            for tensor, raw in zip(response.outputs, response.raw_output_contents)}


def assert_answers(response, model, inputs, version="1", outputs=None):
    """Compares the response with what torch says, every row and every output."""
    expected = reference.outputs(model, inputs, version)
    got = outputs_of(response)
    assert list(got) == list(outputs or [spec.name for spec in reference.model(model).outputs])
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, expected[name], msg=lambda text: f"{name}: {text}")


def status_of(answer):
    """The canonical code of a ModelStreamInferResponse as grpc.StatusCode."""
    if not answer.error_message:
        assert "millrace_status_code" not in answer.infer_response.parameters
        return grpc.StatusCode.OK
    number = answer.infer_response.parameters["millrace_status_code"].int64_param
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def error_of(call):
    """Runs what must fail with a gRPC error, and returns the error."""
    try:
        result = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"no error but {result}")


class Stream:
    """One ModelStreamInfer call: sends on a thread of gRPC's, reads only when asked to."""

    def __init__(self, stub, **metadata):
        self._outgoing = queue.SimpleQueue()
        self.call = stub.ModelStreamInfer(
            iter(self._outgoing.get, None),
            metadata=[(key.replace("_", "-") if key.startswith("millrace") else key, str(value))
                      for key, value in metadata.items()])

    def send(self, *requests):
        for message in requests:
            self._outgoing.put(message)

    def half_close(self):
        self._outgoing.put(None)

    def answer(self):
        return next(self.call)

    def answers(self, count):
        return [next(self.call) for _ in range(count)]

    def rest(self):
        """Half-closes, and returns every further answer; the stream must end OK."""
        self.half_close()
        answers = list(self.call)
        assert self.call.code() == grpc.StatusCode.OK
        return answers

    def cancel(self):
        self.call.cancel()
        self._outgoing.put(None)


def ids(answers):
    return [answer.infer_response.id for answer in answers]
