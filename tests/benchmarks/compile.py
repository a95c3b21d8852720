#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Measures what `millrace compile` gains over frozen TorchScript, by network and way of compiling.

    ./dev bench compile

Each network is compiled anew, unless --cache has it. TorchScript and the packages then run in turn, in
one thread each; a cell has the package's milliseconds for a batch, and TorchScript's time divided by
it, as the median over the rounds.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from programs import REPOSITORY
from tables import Table, machine, number

# Name, input, the largest batch.
NETS = [("tiny_mlp", "32:FP32", 16), ("large_mlp", "1024:FP32", 16),
        ("transformer", "64x256:FP32", 16), ("resnet18", "3x224x224:FP32", 8)]


def compile_net(options, name, shape, batch, cache):
    command = [options.build / "bin/millrace", "compile", f"nets:{name}", "--input", shape,
               "--max-batch-size", batch, "--variants", options.variants, "--budget", options.budget,
               "--even-if-slower", "--json"]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True,
                          cwd=pathlib.Path(__file__).parent, check=False,
                          env={**os.environ, "MILLRACE_PYTHON": sys.executable,
                               "XDG_CACHE_HOME": str(cache)})
    if not done.stdout:
        sys.exit(f"millrace compile of {name} has failed")
    return json.loads(done.stdout)


def rows_of(name, batch, found):
    def row(what, milliseconds, outcome):
        return [what[0], what[1], *milliseconds, number(outcome["memory_mib"]),
                number(outcome["build_seconds"]) if outcome["build_seconds"] else "",
                number(outcome["build_mib"]) if outcome["build_mib"] else "",
                f"{outcome['error']:.0e}"]

    rival = found["rival"]
    if not rival:
        sys.exit(f"{name}: no variant was compiled: {found['variants']}")
    batches = ("1", str(batch))
    yield row((f"{name}, batch {batch}", "TorchScript"),
              [number(rival["milliseconds"][size]) for size in batches], rival)
    for outcome in found["variants"]:
        what = outcome["name"] + (", kept" if outcome["name"] == found["kept"] else "")
        if outcome["trouble"]:
            yield ["", what, outcome["trouble"], "", "", "", "", ""]
            continue
        yield row(("", what), [f"{number(outcome['milliseconds'][size])} "
                               f"({outcome['ratios'][size]:.2f})" for size in batches], outcome)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=[name for name, *_ in NETS], help="only this one")
    parser.add_argument("--variants", default="plain,frozen,frozen+autotune")
    parser.add_argument("--budget", default="5m", help="of each network")
    parser.add_argument("--cache", type=pathlib.Path, metavar="DIR",
                        help="keep packages here, and measure those that are here already without "
                             "compiling them anew")
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build")
    options = parser.parse_args()
    print(machine(sorted(os.sched_getaffinity(0))))
    table = Table("AOTInductor, beside frozen TorchScript, one thread",
                  ["network", "variant", "batch 1 ms (ratio)", "large batch ms (ratio)", "memory MiB",
                   "compile s", "compile MiB", "error"])
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as cache:
        for name, shape, batch in NETS:
            if options.net in (None, name):
                found = compile_net(options, name, shape, batch, options.cache or cache)
                table.rows += rows_of(name, batch, found)
    table.print()


if __name__ == "__main__":
    main()
