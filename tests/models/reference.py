# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What the test models must answer, computed by torch in Python without any server.

    inputs = reference.random_inputs("two_in_two_out", rows=3, seed=7)
    expected = reference.outputs("two_in_two_out", inputs)

Tensors carry the batch dimension where the model has one, and are named as in its config.
"""

import functools
import pathlib
import sys
from typing import Dict

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from make_models import DTYPES, MODELS, Model  # noqa: E402

# Inputs that a model takes are not always any numbers: the first value that is too large.
LIMITS = {"slow": 3, "crashes": 1, "int_embedding": 10}


def model(name: str) -> Model:
    """Returns the description of a test model; KeyError where there is none."""
    return {each.name: each for each in MODELS}[name]


@functools.lru_cache
def _module(name: str, version: str) -> torch.nn.Module:
    return model(name).module(version)


def random_inputs(name: str, rows: int = 1, seed: int = 0, size: int = 5,
                  ) -> Dict[str, torch.Tensor]:
    """Returns inputs that the model answers, the same for the same seed; `size` replaces -1."""
    spec, generator = model(name), torch.Generator().manual_seed(seed)
    result = {}
    for tensor in spec.inputs:
        shape = [size if dim == -1 else dim for dim in tensor.dims]
        if spec.max_batch_size:
            shape.insert(0, rows)
        dtype = DTYPES[tensor.dtype]
        if dtype.is_floating_point:
            values = torch.rand(shape, generator=generator)  # From 0, for the model that raises.
        else:
            limit = LIMITS.get(name, 2 if dtype == torch.bool else 100)
            values = torch.randint(0, limit, shape, generator=generator)
        result[tensor.name] = values.to(dtype)
    return result


@torch.inference_mode()
def outputs(name: str, inputs: Dict[str, torch.Tensor], version: str = "1",
            ) -> Dict[str, torch.Tensor]:
    """Returns the model's outputs by their names in the config."""
    spec = model(name)
    arguments = spec.arguments or [tensor.name for tensor in spec.inputs]
    result = _module(name, version)(*(inputs[argument] for argument in arguments))
    if isinstance(result, dict):
        return result
    if isinstance(result, torch.Tensor):
        result = [result]
    return {tensor.name: value for tensor, value in zip(spec.outputs, result, strict=True)}


def to_bytes(tensor: torch.Tensor) -> bytes:
    """Returns the tensor as `raw_input_contents` carries it, also for BF16, which numpy lacks."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def from_bytes(raw: bytes, dtype: str, shape) -> torch.Tensor:
    """Returns the tensor that `raw_output_contents` carries; `dtype` is a name such as "BF16"."""
    if not raw:
        return torch.empty(tuple(shape), dtype=DTYPES[dtype])
    return torch.frombuffer(bytearray(raw), dtype=DTYPES[dtype]).reshape(tuple(shape))
