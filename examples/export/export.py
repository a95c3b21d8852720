#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""From an nn.Module to a model repository: TorchScript (.pt) in two ways, and AOTInductor (.pt2).

    .venv/bin/python examples/export/export.py --into build/exported

writes build/exported/classifier with three versions of the same network, and a config.pbtxt:

    1/model.pt   scripted: the code of forward() is compiled, with its branches and loops
    2/model.pt   traced: what forward() did with an example is written down, and frozen
    3/model.pt2  exported with a dynamic batch, and compiled for this machine's processor

Version 3 takes g++ and half a minute; `millrace compile` does the same, tries other ways of
compiling, checks each against the module, and keeps the fastest.
"""

import argparse
import pathlib

import torch
from classifier import Classifier

MAX_BATCH_SIZE = 16
CONFIG = f"""\
max_batch_size: {MAX_BATCH_SIZE}
input [ {{ name: "image" data_type: TYPE_FP32 dims: [ 3, 32, 32 ] }} ]
output [
  {{ name: "scores" data_type: TYPE_FP32 dims: [ 10 ] }},
  {{ name: "best" data_type: TYPE_INT64 dims: [ 1 ] }}
]
version_policy {{ all {{ }} }}
"""


def save_scripted(module: torch.nn.Module, path: pathlib.Path) -> None:
    torch.jit.script(module).save(str(path))


def save_traced(module: torch.nn.Module, path: pathlib.Path) -> None:
    """Branches that the example doesn't take are lost; strict=False lets it return a dict. A server
    freezes what isn't frozen, so freezing here only makes the file smaller."""
    example = torch.zeros(2, 3, 32, 32)
    traced = torch.jit.trace(module, example, strict=False)
    torch.jit.freeze(traced).save(str(path))


def export(module: torch.nn.Module) -> torch.export.ExportedProgram:
    """A dim that isn't named in dynamic_shapes has the example's size for good, so the batch is. The
    example has a full batch: code is tuned for its size, and 0 and 1 are sizes of their own kind."""
    example = torch.zeros(MAX_BATCH_SIZE, 3, 32, 32)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH_SIZE)
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes={"image": {0: batch}})


def save_compiled(program: torch.export.ExportedProgram, path: pathlib.Path) -> None:
    """One thread, as a server's replicas have, since the number is compiled in; and the package's own
    checks let single rows through, which it runs."""
    with torch.no_grad():
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path),
            inductor_configs={"cpp.threads": 1, "aot_inductor.check_lowerbound": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", required=True, type=pathlib.Path, metavar="DIR")
    folder = parser.parse_args().into / "classifier"
    files = [folder / "1/model.pt", folder / "2/model.pt", folder / "3/model.pt2"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    module = Classifier().eval()
    save_scripted(module, files[0])
    save_traced(module, files[1])
    save_compiled(export(module), files[2])
    (folder / "config.pbtxt").write_text(CONFIG)
    for file in files:
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
