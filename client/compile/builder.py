# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles one variant, in a process of its own:

    python -m millrace_compile.builder PROGRAM.pt2 PACKAGE.pt2 ISA SETTINGS.json

The last line on stdout is a JSON object: {} or {"error": …}.
"""

import json
import pathlib
import sys
import warnings

import torch
import torch._inductor
from torch._inductor import config, cpu_vec_isa

from .source import said
from .variants import X86_LEVELS


def available_isas() -> list:
    """Names of the instruction sets that Inductor can write code for and this machine runs, from
    the best on. Tries the compiler, which takes seconds."""
    return [str(isa).split()[-1] for isa in cpu_vec_isa.valid_vec_isa_list()]


def use_isa(name: str) -> None:
    """Makes Inductor write code for this instruction set and g++ use no more than it, as what a
    server compares with its machine before it loads a package."""
    every = cpu_vec_isa.valid_vec_isa_list()
    chosen = [isa for isa in every if str(isa).split()[-1] == name]
    cpu_vec_isa.valid_vec_isa_list = lambda: chosen
    if name in X86_LEVELS and hasattr(config.cpp, "march"):
        config.cpp.march = X86_LEVELS[name]
    elif name in X86_LEVELS and every and chosen != every[:1]:
        raise ValueError(f"torch {torch.__version__} has g++ use all that this machine has; take a "
                         "newer torch, or leave out --isa")


def main() -> None:
    program_file, package, isa, settings = sys.argv[1:]
    warnings.simplefilter("ignore")
    known = {name: value for name, value in json.loads(pathlib.Path(settings).read_text()).items()
             if name in config.get_config_copy()}
    try:
        use_isa(isa)
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(torch.export.load(program_file),
                                                     package_path=package, inductor_configs=known)
    except Exception as error:
        print(json.dumps({"error": said(error)}))
    else:
        print("{}")


if __name__ == "__main__":
    main()
