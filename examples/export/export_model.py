#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""From an nn.Module to the two kinds of file that Millrace serves.

    python examples/export/export_model.py --into DIR

writes DIR/scale.pt (TorchScript) and DIR/scale.pt2 (compiled by AOTInductor, which takes a C++
compiler) of the same small network. Put your own in its place.
"""

import argparse
import pathlib
from typing import Dict

import torch
from torch import Tensor, nn

MOST_ROWS = 8  # In a batch of the package; TorchScript takes any number.


class Scale(nn.Module):
    """Stretches and shifts 16 values. The names of its arguments and results are those that
    clients use."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, values: Tensor) -> Dict[str, Tensor]:
        return {"scaled": self.layer(values)}


def save_torchscript(module: nn.Module, path: pathlib.Path) -> None:
    """Keeps the code as torch.jit.script reads it; torch.jit.trace(module, example) is for modules
    that it can't read."""
    torch.jit.script(module).save(str(path))


def save_package(module: nn.Module, path: pathlib.Path) -> None:
    """Compiles the module for this machine's processor and for batches of 1 to MOST_ROWS rows: the
    first dimension is a dynamic one. The example must have as many rows as a full batch."""
    example = torch.zeros(MOST_ROWS, 16)
    rows = torch.export.Dim("rows", min=1, max=MOST_ROWS)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: rows},))
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a model as TorchScript and as a package.")
    parser.add_argument("--into", required=True, type=pathlib.Path, metavar="DIR")
    folder = parser.parse_args().into
    folder.mkdir(parents=True, exist_ok=True)
    module = Scale().eval()  # As it is to be served: dropout and batch normalisation are off.
    save_torchscript(module, folder / "scale.pt")
    with torch.no_grad():
        save_package(module, folder / "scale.pt2")
    print(f"wrote {folder / 'scale.pt'} and {folder / 'scale.pt2'}")


if __name__ == "__main__":
    main()
