# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What goes into a model and comes out, and how the command line and config.pbtxt write it."""

import dataclasses
import re
from typing import Sequence, Tuple

# Triton's names, and torch's.
DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "BF16": "bfloat16", "FP32": "float32", "FP64": "float64",
}
MOST_DIMS = 7  # Without the batch's.


class UsageError(Exception):
    """What the user asked for can't be: says what came, what was expected, and what to do."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    name: str  # "" where the command line gives none.
    dtype: str  # A key of DTYPES.
    dims: Tuple[int, ...]  # Without the batch dimension, where there is one; -1 is any size.

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.dims))}]".strip()


@dataclasses.dataclass(frozen=True)
class Signature:
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    max_batch_size: int  # 0: there is no batch dimension.

    def config_text(self, threads: int) -> str:
        """A config.pbtxt for replicas of so many threads."""
        def tensors(kind: str, specs: Sequence[TensorSpec]) -> str:
            return "\n".join(f'{kind} [ {{ name: "{spec.name}" data_type: TYPE_{spec.dtype} '
                             f'dims: [ {", ".join(map(str, spec.dims))} ] }} ]' for spec in specs)

        wide = (f'parameters {{ key: "INTRA_OP_THREAD_COUNT" value {{ string_value: "{threads}" }} }}\n'
                if threads > 1 else "")
        return (f"max_batch_size: {self.max_batch_size}\n{tensors('input', self.inputs)}\n"
                f"{tensors('output', self.outputs)}\n{wide}")


def parse_input(text: str) -> TensorSpec:
    """Reads `3x224x224:FP32`, or `image=3x224x224:FP32`; `:FP32` is one element a row."""
    example = "expected a shape and a data type such as 3x224x224:FP32, or image=3x224x224:FP32"
    match = re.fullmatch(r"(?:(\w+)=)?([^:=]*):(\w+)", text)
    if not match:
        raise UsageError(f"--input '{text}': {example}")
    name, shape, dtype = match[1] or "", match[2], match[3].upper()
    if dtype in ("BYTES", "STRING"):
        raise UsageError(f"--input '{text}': strings are no tensors of PyTorch; give the numbers "
                         "that the module takes in their place")
    if dtype not in DTYPES:
        raise UsageError(f"--input '{text}': '{match[3]}' is no data type; expected one of "
                         f"{', '.join(DTYPES)}")
    dims = shape.split("x") if shape else []
    if not all(re.fullmatch(r"-1|[1-9]\d{0,9}", dim) for dim in dims):
        raise UsageError(f"--input '{text}': '{shape}' is no shape; {example}, with sizes of 1 or "
                         "more, or -1 for any")
    if len(dims) > MOST_DIMS:
        raise UsageError(f"--input '{text}' has {len(dims)} dimensions; at most {MOST_DIMS} can be "
                         "served")
    return TensorSpec(name, dtype, tuple(map(int, dims)))


def order_inputs(specs: Sequence[TensorSpec], arguments: Sequence[str],
                 required: int) -> Sequence[TensorSpec]:
    """Returns the specs in the order of forward()'s arguments, the first `required` of which must
    be there, under their names."""
    takes = f"forward() takes {', '.join(arguments) or 'nothing'}"
    if not required <= len(specs) <= len(arguments) or not specs:
        raise UsageError(f"--input is given {len(specs)} times, but {takes}: give one for each, in "
                         "this order, or as NAME=SHAPE:TYPE")
    named = {spec.name: spec for spec in specs if spec.name}
    if not named:
        return [dataclasses.replace(spec, name=name) for spec, name in zip(specs, arguments)]
    if len(named) < len(specs):
        raise UsageError("some --input have a name and some have none, or two have the same; name "
                         f"all of them, each once, or none: {takes}")
    if unknown := [name for name in named if name not in arguments[:len(specs)]]:
        raise UsageError(f"--input {unknown[0]}=…: there is no such argument among the first "
                         f"{len(specs)}: {takes}")
    return [named[name] for name in arguments[:len(specs)]]
