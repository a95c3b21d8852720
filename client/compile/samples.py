# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs that packages are checked and measured on, and how far apart two answers are."""

import pathlib
from typing import List, Optional, Sequence, Tuple

import numpy
import torch

from .source import DTYPE_NAMES, Source, example_inputs, said
from .tensors import DTYPES, Signature, UsageError
from .variants import TOLERANCES


def batches(source: Source, samples: Optional[pathlib.Path]) -> List[Tuple[int, List[torch.Tensor]]]:
    """Inputs for each size of batch, given or random ones."""
    given = read_samples(samples, source.signature) if samples else None
    return [(rows, given_rows(given, rows) if given else
             example_inputs(source.signature, rows, seed=1 + rows)) for rows in source.batch_sizes()]


def read_samples(path: pathlib.Path, signature: Signature) -> List[torch.Tensor]:
    """An .npz with an array for each input, under its name; rows are its first dim, where the model
    has a batch dimension."""
    try:
        with numpy.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:
        raise UsageError(f"--samples {path} can't be read as .npz: {said(error)}; write it with "
                         "numpy.savez") from error
    names = [spec.name for spec in signature.inputs]
    if sorted(arrays) != sorted(names):
        raise UsageError(f"--samples {path} has {', '.join(sorted(arrays)) or 'nothing'}; expected "
                         f"an array for each of {', '.join(names)}")
    return [checked_sample(path, arrays[spec.name], spec, signature) for spec in signature.inputs]


def checked_sample(path, array, spec, signature) -> torch.Tensor:
    dims = ((-1,) if signature.max_batch_size else ()) + spec.dims
    dtype = getattr(torch, DTYPES[spec.dtype])
    fits = len(array.shape) == len(dims) and all(
        want in (-1, size) for want, size in zip(dims, array.shape))
    kinds = "fiub" if dtype.is_floating_point else "iub"
    if not fits or 0 in array.shape or array.dtype.kind not in kinds:
        raise UsageError(f"--samples {path}: '{spec.name}' is {array.dtype} {list(array.shape)}; "
                         f"expected {spec.dtype} {list(dims)}, where -1 is 1 or more")
    return torch.from_numpy(array).to(dtype)


def given_rows(given: Sequence[torch.Tensor], rows: int) -> List[torch.Tensor]:
    """So many rows of the samples, from the first again after the last; 0: all, as they are."""
    if not rows:
        return list(given)
    return [value[torch.arange(rows) % value.shape[0]].contiguous() for value in given]


def distance(ours: torch.Tensor, original: torch.Tensor) -> float:
    """The largest difference, as a part of the original's largest value; infinite where the kind,
    the shape, an integer, or what isn't finite differs."""
    if ours.dtype != original.dtype or ours.shape != original.shape:
        return float("inf")
    if not original.is_floating_point():
        return 0.0 if torch.equal(ours, original) else float("inf")
    ours, original = ours.double(), original.double()
    finite = original.isfinite()
    if not torch.equal(finite, ours.isfinite()) or not torch.equal(
            ours[~finite].nan_to_num(nan=0.5), original[~finite].nan_to_num(nan=0.5)):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = original[finite].abs().max().item()
    apart = (ours[finite] - original[finite]).abs().max().item()
    return apart / largest if largest else apart


def tolerance(output: torch.Tensor, bf16: bool, given: Optional[float]) -> float:
    if given is not None:
        return given
    if not output.is_floating_point():
        return 0.0
    return TOLERANCES["BF16" if bf16 else DTYPE_NAMES[output.dtype]]


def disagreement(ours: Sequence[torch.Tensor], original: Sequence[torch.Tensor],
                 names: Sequence[str], bf16: bool, given: Optional[float]) -> Tuple[float, str]:
    """How far the outputs are apart, and, where that is too far, in words."""
    if len(ours) != len(original):
        return float("inf"), f"{len(ours)} outputs came, the original has {len(original)}"
    far, words = 0.0, ""
    for name, our, theirs in zip(names, ours, original):
        apart, limit = distance(our, theirs), tolerance(theirs, bf16, given)
        if apart > limit and apart >= far:
            words = describe(name, our, theirs, apart, limit)
        far = max(far, apart)
    return far, words


def describe(name: str, ours: torch.Tensor, original: torch.Tensor, apart: float,
             limit: float) -> str:
    if apart < float("inf"):
        return (f"'{name}' differs from the original by {apart:.2g} of its largest value; at most "
                f"{limit:.2g} is allowed")
    if (ours.dtype, ours.shape) != (original.dtype, original.shape):
        return (f"'{name}' is {ours.dtype} {list(ours.shape)}, the original {original.dtype} "
                f"{list(original.shape)}")
    kind = "NaN or infinite" if ours.is_floating_point() else "whole"
    return f"'{name}' has other {kind} numbers than the original"
