#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Measures the server against what gRPC and libtorch can do alone; docs/benchmarks.md explains.

    ./dev bench                   everything, about ten minutes
    ./dev bench --quick           the same in a minute and a half, and noisier
    ./dev bench threads           replicas × threads of a model, without the server
    ./dev bench hold              what it brings to hold a batch for streams that soon return

Whatever is compared runs in turn, A B B A …, on the same cores in the same minutes; a ratio is the
median over these rounds, with the lowest and the highest beside it.
"""

import argparse
import json
import os
import pathlib
import statistics
from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Sequence, Tuple

from programs import (IDENTITY, LARGE_MLP, REPOSITORY, RESNET18, TINY_MLP, Load, Loop, Measured,
                      Model, Programs, Server, Target, Variant)
from tables import Ratio, Table, goal_cells, in_turn, number, print_machine, undisturbed

MODELS = {model.name: model for model in (IDENTITY, TINY_MLP, LARGE_MLP, RESNET18)}

IDENTITY_BATCH = 32
IDENTITY_LOADS = {  # And what part of the echo's rate is expected.
    Load(calls=1): None,
    Load(calls=8): None,
    Load(calls=32): 0.8,
    Load(streams=1): None,
    Load(streams=8, window=16): 0.8,
    Load(streams=32): 0.4,
}


@dataclass(frozen=True)
class DelayModel:
    """A model that sleeps for a time that is known: setup_ms + row_ms × rows."""

    name: str
    setup_ms: float
    row_ms: float

    @property
    def model(self) -> Model:
        return Model(self.name, [4], 4)

    def rows_per_second(self, batch: int, replicas: int) -> float:
        return 1e3 * replicas * batch / (self.setup_ms + self.row_ms * batch)

    def __str__(self) -> str:
        return f"{self.setup_ms:g} ms + {self.row_ms:g} ms per row"


HOLD_BATCH = 64
HOLD_MODELS = (DelayModel("delay_setup", 5, 0.1), DelayModel("delay_light", 0.3, 0.1))
# What is compared. It is what the config of each says, and all in which they differ.
HOLDS = {"RETURNERS": "millrace { batching { hold: RETURNERS } }\n",
         "NONE": "millrace { batching { hold: NONE } }\n"}
HOLD_CLOSED = [Load(streams=streams, window=window)
               for streams in (8, 16, 32) for window in (1, 4)]
HOLD_OPEN = [Load(streams=32, window=64), Load(calls=1000)]
HOLD_OPEN_PART = 0.6  # Of the capacity with full batches: the open loops' rate.
HOLD_REPEATS = 4  # Of a measurement that was disturbed, at most.


@dataclass(frozen=True)
class Effort:
    """How long is measured, and how often."""

    rounds: int
    batches: Dict[str, Sequence[int]]  # Of each model; the last one is its best.
    seconds: Dict[str, float]
    warmup: Dict[str, float]

    def with_rounds(self, rounds: int) -> "Effort":
        return Effort(rounds, self.batches, self.seconds, self.warmup)


FULL = Effort(7, {"resnet18": (1, 4), "large_mlp": (1, 4, 16), "tiny_mlp": (1, 32)},
              {"resnet18": 4, "large_mlp": 1.5, "tiny_mlp": 1, "identity": 1, "delay": 1},
              {"resnet18": 1, "large_mlp": 0.4, "tiny_mlp": 0.3, "identity": 0.3, "delay": 0.3})
QUICK = Effort(3, {"resnet18": (1,), "large_mlp": (1, 16), "tiny_mlp": (32,)},
               {"resnet18": 1.5, "large_mlp": 0.7, "tiny_mlp": 0.4, "identity": 0.4, "delay": 0.5},
               {"resnet18": 0.4, "large_mlp": 0.2, "tiny_mlp": 0.1, "identity": 0.1,
                "delay": 0.2})
SMOKE = Effort(1, {"resnet18": (1,), "large_mlp": (16,), "tiny_mlp": (32,)},
               {"resnet18": 0.4, "large_mlp": 0.1, "tiny_mlp": 0.1, "identity": 0.1, "delay": 0.1},
               {"resnet18": 0.1, "large_mlp": 0.1, "tiny_mlp": 0.1, "identity": 0.1, "delay": 0.1})

GOALS = {"resnet18": 0.95, "large_mlp": 0.9}  # At the best batch.


# ---- What is measured ----

class Bench:
    def __init__(self, programs: Programs, effort: Effort, cores: int):
        self.programs = programs
        self.effort = effort
        self.cores = cores
        self.results: Dict[str, List[Dict[str, object]]] = {}
        self.costs: List[Tuple[str, Model, List[Measured], Optional[List[Measured]]]] = []

    def run(self) -> None:
        print_machine(self.programs.cpus, self.effort.rounds)
        efficiency = Table("(a) Replica efficiency: rows/s through the server, of a raw libtorch "
                           "loop on the same cores",
                           ["model", "batch", "replicas", "server/s", "loop/s", "ratio", "spread",
                            "goal", ""])
        scaling = Table(f"(c) Scaling: {self.cores} replicas of one's rate, and how the raw loop "
                        "scales",
                        ["model", "batch", "1 replica/s", f"{self.cores} replicas/s", "server ×",
                         "loop ×", "ratio", "spread"])
        for model in (RESNET18, LARGE_MLP, TINY_MLP):
            self.measure_model(model, efficiency, scaling)
        efficiency.print()
        cost = Table("(b) Server cost: requests/s of the identity model through the server, of a "
                     "raw gRPC echo",
                     ["load", "server/s", "echo/s", "ratio", "spread", "goal", "", "server p50 µs",
                      "p99", "echo p50 µs", "p99"])
        self.measure_identity(cost)
        cost.print()
        scaling.print()
        self.make_request_table().print()

    def record(self, section: str, **row: object) -> None:
        self.results.setdefault(section, []).append(row)

    # Sections (a) and (c): a server with a variant for each batch size, and one with one replica.
    def measure_model(self, model: Model, efficiency: Table, scaling: Table) -> None:
        batches = self.effort.batches[model.name]
        variants = {f"{model.name}_{batch}x{self.cores}": Variant(model, batch, self.cores)
                    for batch in batches}
        variants[f"{model.name}_{batches[-1]}x1"] = Variant(model, batches[-1], 1)
        with self.programs.server(variants) as server, self.programs.loop(model) as loop:
            for batch in batches:
                self.measure_efficiency(server, loop, model, batch, efficiency)
            self.measure_scaling(server, loop, model, batches[-1], scaling)

    def through_server(self, server: Server, model: Model, batch: int, replicas: int) -> Measured:
        # So many under way that a full batch waits while the replicas compute.
        streams = 8
        window = -(-3 * batch * replicas // streams)
        return server.load_variant(f"{model.name}_{batch}x{replicas}",
                                   Load(streams=streams, window=window),
                                   self.effort.seconds[model.name], self.effort.warmup[model.name])

    def measure_efficiency(self, server: Server, loop: Loop, model: Model, batch: int,
                           table: Table) -> None:
        seconds = self.effort.seconds[model.name]
        measured: List[Measured] = []

        def serve() -> float:
            measured.append(self.through_server(server, model, batch, self.cores))
            return measured[-1].per_second

        def run_loop() -> float:
            return loop.rows_per_second(batch, self.cores, 1, seconds)

        ratio = Ratio(*in_turn(self.effort.rounds, serve, run_loop))
        goal = GOALS.get(model.name) if batch == self.effort.batches[model.name][-1] else None
        table.rows.append([model.name, str(batch), str(self.cores), *ratio.cells(),
                           *goal_cells(ratio.median, goal)])
        self.record("efficiency", model=model.name, batch=batch, replicas=self.cores, goal=goal,
                    **ratio.json())
        self.costs.append((f"{model.name}, batch {batch}", model, measured, None))

    def measure_scaling(self, server: Server, loop: Loop, model: Model, batch: int,
                        table: Table) -> None:
        seconds = self.effort.seconds[model.name]
        one, all_cores, loop_one, loop_all = in_turn(
            self.effort.rounds,
            lambda: self.through_server(server, model, batch, 1).per_second,
            lambda: self.through_server(server, model, batch, self.cores).per_second,
            lambda: loop.rows_per_second(batch, 1, 1, seconds),
            lambda: loop.rows_per_second(batch, self.cores, 1, seconds))
        ours, theirs = Ratio(all_cores, one), Ratio(loop_all, loop_one)
        both = Ratio(ours.each, theirs.each)
        table.rows.append([model.name, str(batch), number(statistics.median(one)),
                           number(statistics.median(all_cores)), *both.cells()])
        self.record("scaling", model=model.name, batch=batch, replicas=self.cores,
                    server=ours.json(), loop=theirs.json(), ratio=both.median)

    # Section (b): one replica, as many as an identity needs.
    def measure_identity(self, table: Table) -> None:
        name = "identity_x1"
        variants = {name: Variant(IDENTITY, IDENTITY_BATCH, 1)}
        with self.programs.server(variants) as server, self.programs.echo() as echo:
            for shape, goal in IDENTITY_LOADS.items():
                self.measure_cost(server, echo, name, shape, goal, table)

    def measure_cost(self, server: Target, echo: Target, name: str, shape: Load,
                     goal: Optional[float], table: Table) -> None:
        measured: Dict[Target, List[Measured]] = {server: [], echo: []}

        def load(target: Target) -> float:
            found = target.load(shape, self.effort.seconds["identity"], name, IDENTITY,
                                self.effort.warmup["identity"])
            measured[target].append(found)
            return found.per_second

        ratio = Ratio(*in_turn(self.effort.rounds, lambda: load(server), lambda: load(echo)))
        latencies = [number(statistics.median(getattr(found, which) for found in measured[target]))
                     for target in (server, echo) for which in ("p50_us", "p99_us")]
        table.rows.append([str(shape), *ratio.cells(), *goal_cells(ratio.median, goal), *latencies])
        self.record("cost", load=str(shape), goal=goal, **ratio.json(),
                    response_bytes=[measured[target][0].response_bytes for target in (server, echo)])
        self.costs.append((f"identity, {shape}", IDENTITY, measured[server], measured[echo]))

    # Section (d), of what the others measured.
    def make_request_table(self) -> Table:
        table = Table("(d) Per request: CPU time in µs, and payload bytes that the server and its "
                      "worker copy",
                      ["model, load", "server", "worker", "generator", "echo", "its generator",
                       "bytes in", "bytes out", "copied"])
        for label, model, measured, echo in self.costs:
            def median(values: Sequence[float]) -> float:
                return statistics.median(values)

            server = median([found.cpu_us[0] for found in measured])
            worker = median([sum(found.cpu_us[1:]) for found in measured])
            generator = median([found.own_cpu_us for found in measured])
            cells = [number(server), number(worker), number(generator)]
            if echo is None:
                cells += ["", ""]
            else:
                cells += [number(median([found.cpu_us[0] for found in echo])),
                          number(median([found.own_cpu_us for found in echo]))]
            bytes_in, bytes_out = 4, 4 * model.outputs
            for dim in model.dims:
                bytes_in *= dim
            copied = bytes_in + 2 * bytes_out
            table.rows.append([label, *cells, f"{bytes_in:,}", f"{bytes_out:,}", f"{copied:,}"])
            self.record("per_request", load=label, server_us=server, worker_us=worker,
                        generator_us=generator, bytes_copied=copied)
        return table


# ---- ./dev bench threads ----

def powers_of_two(most: int) -> List[int]:
    return [1 << power for power in range(most.bit_length())]


def measure_threads(programs: Programs, cores: int, model: Model, batches: Sequence[int],
                    seconds: float) -> List[Dict[str, object]]:
    """Prints and returns rows/s of raw loop processes, by replicas × threads and batch size."""
    shapes = [(replicas, threads) for replicas in powers_of_two(2 * cores)
              for threads in powers_of_two(2 * cores)]
    rates: Dict[Tuple[int, int], List[float]] = {shape: [] for shape in shapes}
    with programs.loop(model) as loop:
        for batch in batches:
            for replicas, threads in shapes:
                rates[replicas, threads].append(
                    loop.rows_per_second(batch, replicas, threads, seconds))
    best = [max(rates[shape][i] for shape in shapes) for i in range(len(batches))]
    table = Table(f"{model.name} on {cores} cores: rows/s by batch size, and the part of the "
                  "column's best", ["replicas × threads", *(f"batch {batch}" for batch in batches),
                                    "threads per core"])
    results = []
    for replicas, threads in shapes:
        load = replicas * threads / cores
        cells = [f"{number(rate)} ({rate / most:.0%})"
                 for rate, most in zip(rates[replicas, threads], best)]
        table.rows.append([f"{replicas} × {threads}", *cells,
                           f"{load:g}" + (" oversubscribed" if load > 1 else "")])
        results.append({"replicas": replicas, "threads": threads,
                        "rows_per_second": dict(zip(batches, rates[replicas, threads]))})
    table.print()
    return results


# ---- ./dev bench hold ----

class HoldBench:
    """Compares HOLDS with models whose cost is known and leaves the cores free, under closed loops,
    whose streams return when they are answered, and open ones, which don't care."""

    def __init__(self, programs: Programs, effort: Effort, cores: int):
        self.programs = programs
        self.effort = effort
        self.cores = cores
        self.results: List[Dict[str, object]] = []
        self.table = Table("Holding for returners: requests/s with hold: RETURNERS, of the same "
                           "with hold: NONE",
                           ["model", "replicas", "load", "returners/s", "none/s", "ratio", "spread",
                            "p50 ms", "p99", "none p50 ms", "p99", "Jain", "none", "stolen",
                            "errors"])

    def run(self) -> None:
        print_machine(self.programs.cpus, self.effort.rounds)
        for delay in HOLD_MODELS:
            for replicas in sorted({1, self.cores}):
                self.measure_model(delay, replicas)
        self.table.print()

    def measure_model(self, delay: DelayModel, replicas: int) -> None:
        variants = {f"{delay.name}_{hold}": Variant(delay.model, HOLD_BATCH, replicas, config)
                    for hold, config in HOLDS.items()}
        rate = round(HOLD_OPEN_PART * delay.rows_per_second(HOLD_BATCH, replicas))
        with self.programs.server(variants) as server:
            for load in HOLD_CLOSED:
                self.compare(server, delay, replicas, load)
            for load in HOLD_OPEN:
                self.compare(server, delay, replicas, replace(load, rate=rate))

    def compare(self, server: Server, delay: DelayModel, replicas: int, load: Load) -> None:
        measured: Dict[str, List[Measured]] = {hold: [] for hold in HOLDS}

        def measure(hold: str) -> float:
            rounds = measured[hold]
            # The same times for both, others in the next round.
            seeded = replace(load, seed=len(rounds))
            rounds.append(undisturbed(lambda: server.load_variant(
                f"{delay.name}_{hold}", seeded, self.effort.seconds["delay"],
                self.effort.warmup["delay"]), HOLD_REPEATS if self.effort.rounds > 1 else 0))
            return rounds[-1].per_second

        ratio = Ratio(*in_turn(self.effort.rounds, *(lambda h=hold: measure(h) for hold in HOLDS)))

        def medians(name: str) -> List[float]:
            return [statistics.median(getattr(found, name) for found in measured[hold])
                    for hold in HOLDS]

        p50_us, p99_us, fairness, stolen = (
            medians(name) for name in ("p50_us", "p99_us", "fairness", "stolen"))
        errors: Dict[str, int] = {}
        for code, count in (item for rounds in measured.values() for found in rounds
                            for item in found.errors.items()):
            errors[code] = errors.get(code, 0) + count
        self.table.rows.append([
            str(delay), str(replicas), str(load), *ratio.cells(),
            *(number(value / 1e3) for pair in zip(p50_us, p99_us) for value in pair),
            *(f"{index:.2f}" if load.streams else "" for index in fairness),
            f"{max(stolen):.0%}",
            ", ".join(f"{count} {code}" for code, count in sorted(errors.items()))])
        self.results.append({
            "model": delay.name, "replicas": replicas, "load": str(load), "errors": errors,
            "seeds": f"0 to {self.effort.rounds - 1}" if load.rate else None,
            "p50_us": p50_us, "p99_us": p99_us, "fairness": fairness,
            "late_p99_us": medians("late_p99_us"), "stolen": stolen, **ratio.json()})


# ---- The command line ----

def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "threads", "hold"], default="all")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="a minute and a half, and noisier")
    effort.add_argument("--smoke", action="store_true", help="seconds: only shows that it works")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--cores", type=int, default=2, help="how many cores to use (2)")
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE, too")
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build",
                        help="the build folder; nothing is written outside it")
    parser.add_argument("--models", type=pathlib.Path, default=REPOSITORY / "build/models",
                        help="the models' folder")
    threads = parser.add_argument_group("threads")
    threads.add_argument("--model", choices=MODELS, default="large_mlp")
    threads.add_argument("--batches", type=lambda text: [int(word) for word in text.split(",")],
                         default=[1, 4, 16], help="batch sizes, e.g. 1,4,16")
    threads.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cpus = sorted(os.sched_getaffinity(0))[:arguments.cores]
    os.sched_setaffinity(0, cpus)  # Of everything that is started, too.
    build, models = arguments.build.resolve(), arguments.models.resolve()
    if arguments.what == "hold":
        programs = Programs(build, models / "delay", cpus, "tests/millrace-test-worker")
    else:
        programs = Programs(build, models / "bench", cpus)
    programs.check()
    effort = QUICK if arguments.quick else SMOKE if arguments.smoke else FULL
    if arguments.rounds:
        effort = effort.with_rounds(arguments.rounds)
    if arguments.what == "threads":
        results: object = measure_threads(programs, len(cpus), MODELS[arguments.model],
                                          arguments.batches, arguments.seconds)
    else:
        bench = (HoldBench if arguments.what == "hold" else Bench)(programs, effort, len(cpus))
        bench.run()
        results = bench.results
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
