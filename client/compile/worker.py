# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a package, or what it is compared with, in a process of its own:

    python -m millrace_compile.worker KIND FILE THREADS

KIND is package, torchscript or exported. It reads commands as lines of JSON and answers each with a
line on the descriptor that stdout was: {"run": INPUTS, "into": OUTPUTS} runs the tensors of a file
and saves what comes out, {"time": INPUTS, "seconds": S} measures, {"memory": true} tells what it has
grown by since before it loaded.
"""

import json
import os
import re
import statistics
import sys
import time
import warnings
from typing import Callable, List

import torch
from torch.utils import _pytree as pytree

WARM_RUNS = 3  # TorchScript specialises in its first two runs of a shape.
MOST_RUNS = 100_000


def opened(kind: str, file: str) -> Callable[[List[torch.Tensor]], List[torch.Tensor]]:
    if kind == "package":
        loader = torch._C._aoti.AOTIModelPackageLoader(file, "model", True, 1, -1)
        return lambda inputs: loader.boxed_run(list(inputs))
    if kind == "torchscript":  # As a server runs it.
        module = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.load(file).eval()))
    else:
        module = torch.export.load(file).module()
    return lambda inputs: pytree.tree_leaves(module(*inputs))


def resident_mib() -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s*(\d+)", status.read())[1]) / 1024


def timed(run, inputs, seconds: float) -> float:
    """The median, in milliseconds, of the runs that fit into so many seconds; of one at least."""
    took: List[float] = []
    begin = time.perf_counter()
    while not took or (time.perf_counter() - begin < seconds and len(took) < MOST_RUNS):
        start = time.perf_counter()
        run(inputs)
        took.append(1e3 * (time.perf_counter() - start))
    return statistics.median(took)


def main() -> None:
    kind, file, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print is no answer.
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(threads))
    before = resident_mib()
    run = opened(kind, file)
    loaded = {}
    with torch.inference_mode():
        for line in sys.stdin:
            command = json.loads(line)
            path = command.get("run") or command.get("time")
            if path and path not in loaded:
                loaded[path] = torch.load(path)
                for _ in range(WARM_RUNS if "time" in command else 0):
                    run(loaded[path])
            if "run" in command:
                torch.save([value.clone() for value in run(loaded[path])], command["into"])
                answer = {}
            elif "time" in command:
                answer = {"milliseconds": timed(run, loaded[path], command["seconds"])}
            else:
                answer = {"mib": resident_mib() - before}
            print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
