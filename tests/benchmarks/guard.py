#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard in front of gRPC costs, and what it costs to look at every call: a raw gRPC echo
behind the server's own door, with either and with neither, in turn.

    ./dev bench guard                 about two minutes
    ./dev bench guard --rounds 3 --seconds 0.5
"""

import argparse
import json
import os
import pathlib
import statistics
from typing import Dict, List

from programs import IDENTITY, REPOSITORY, Load, Measured, Model, Programs, Target
from tables import Ratio, Table, in_turn, number, print_machine

PICTURE = Model("identity", [3, 224, 224], 16)  # The echo looks at no request.
LOADS = [(Load(calls=1), IDENTITY), (Load(calls=32), IDENTITY), (Load(streams=1), IDENTITY),
         (Load(streams=8, window=16), IDENTITY), (Load(streams=8, window=4), PICTURE)]
DOORS = {"guard": "guard=on", "check": "calls checked"}


def measure(doors: Dict[str, Target], rounds: int, seconds: float, table: Table) -> List[object]:
    results: List[object] = []
    for shape, model in LOADS:
        measured: Dict[str, List[Measured]] = {door: [] for door in doors}

        def load(door: str) -> float:
            found = doors[door].load(shape, seconds, "identity", model)
            measured[door].append(found)
            return found.per_second

        rates = dict(zip(doors, in_turn(rounds, *(lambda door=door: load(door) for door in doors))))
        for door, title in DOORS.items():
            ratio = Ratio(rates[door], rates["plain"])
            figures = [number(statistics.median(getattr(found, which) for found in measured[each]))
                       for each in (door, "plain") for which in ("p50_us", "p99_us")]
            cpu = [number(statistics.median(found.cpu_us[0] for found in measured[each]))
                   for each in (door, "plain")]
            size = 4
            for dim in model.dims:
                size *= dim
            table.rows.append([title, str(shape), f"{size:,}", *ratio.cells(), *figures, *cpu])
            results.append({"door": door, "load": str(shape), "bytes": size, **ratio.json()})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench guard", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build")
    parser.add_argument("--json", type=pathlib.Path, help="write every figure there, too")
    arguments = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cpus)
    programs = Programs(arguments.build, arguments.build / "models", cpus)
    print_machine(cpus, arguments.rounds)
    table = Table("The guard, and looking at every call: requests/s of a raw echo, of the same "
                  "without",
                  ["door", "load", "bytes in", "with/s", "without/s", "ratio", "spread", "p50 µs",
                   "p99", "without p50 µs", "p99", "CPU µs", "without"])
    with (programs.echo("plain") as plain, programs.echo("guard") as guard,
          programs.echo("check") as check):
        results = measure({"plain": plain, "guard": guard, "check": check}, arguments.rounds,
                          arguments.seconds, table)
    table.print()
    if arguments.json:
        arguments.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
