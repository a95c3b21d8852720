# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What clients send, and what an answer's values say: which request they answer, and by what model.

Every row carries an order to the model (ORDERS), who sent it, and its own number; the model adds
its amount to each element. Whoever knows the amount can tell from an answer alone what was asked.
"""

import numpy
from tritonclient.grpc import service_pb2

# Numbers that no test of a model's rows at load happens to bring.
ORDERS = {"plain": 0.0, "fail": -1001.5, "crash": -1002.5, "hang": -1003.5, "fill": -1004.5}
# What each model adds; `release` its version's number.
AMOUNTS = {"plain": 11, "work": 12, "narrow": 13, "poison": 14, "hungry": 15, "wide": 16,
           "lonely": 17, "release": 1}
MODELS = (*AMOUNTS, "mlp_pt2")
COLUMNS = 8
WIDE_COLUMNS = 1 << 16  # A quarter of a megabyte.
TABLE_ROWS = 64


class Table:
    """Inputs of mlp_pt2 and what torch makes of them, as make_table() has written them."""

    def __init__(self, path):
        with numpy.load(path) as file:
            self.inputs, self.outputs = file["inputs"], file["outputs"]

    def index_of(self, output):
        """Which row it is an answer to; -1 where to none."""
        distance = numpy.abs(self.outputs - output).max(axis=1)
        best = int(distance.argmin())
        return best if distance[best] < 1e-4 else -1


def make_request(model, order, sender, number, rows, table, timeout=0):
    """`sender` are two numbers, of a client and its session."""
    if model == "mlp_pt2":
        values = table.inputs[(number + numpy.arange(rows)) % TABLE_ROWS]
    else:
        columns = WIDE_COLUMNS if model == "wide" else COLUMNS
        values = numpy.zeros((rows, columns), numpy.float32)
        values[:, 1:4] = (*sender, number)
        values[:, 4] = numpy.arange(rows)
        values[rows // 2, 0] = ORDERS[order]
    message = service_pb2.ModelInferRequest(model_name=model, id=str(number))
    message.inputs.add(name="INPUT__0", datatype="FP32", shape=values.shape)
    message.raw_input_contents.append(values.tobytes())
    if timeout:
        message.parameters["timeout"].int64_param = timeout
    return message


def asked(model, sender, number, rows):
    """The word for what a right answer to a request says; as said()."""
    if model == "mlp_pt2":
        return "row" + ",".join(str((number + row) % TABLE_ROWS) for row in range(rows))
    return f"{sender[0]}.{sender[1]}.{number}x{rows}"


def said(response, table):
    """What an answer's values say, in one word, and what the model has added."""
    try:
        values = numpy.frombuffer(response.raw_output_contents[0], numpy.float32)
        values = values.reshape(response.outputs[0].shape)
        if response.model_name == "mlp_pt2":
            return "row" + ",".join(str(table.index_of(row)) for row in values), 0
        added = int(values[0, 0])
        plain = values - added
        client, session, number = (int(value) for value in plain[0, 1:4])
        expected = numpy.zeros_like(plain)
        expected[:, 1:4] = plain[0, 1:4]
        expected[:, 4] = numpy.arange(len(plain))
        if not numpy.array_equal(plain, expected):
            return "mixed-rows", added
        return f"{client}.{session}.{number}x{len(plain)}", added
    except (IndexError, ValueError) as error:
        return f"no-tensor:{type(error).__name__}", 0
