#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Measures whether a model that is ready is warm: what the first request takes, of a usual one.

    ./dev bench warm

Every first request meets a replica that has run nothing yet: of a server that has just started, and
of one that takes the place of a replica that was killed. A ratio is the first one's time over the
median of those that follow, by one client that sends one request at a time; the table has the median
over the rounds, and the worst. Each model runs at batch 1, and at a batch in the middle that is no
power of two.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import statistics
import sys
import time
import urllib.request
from dataclasses import dataclass
from typing import Dict, List

import numpy
import tritonclient.grpc as grpcclient
from processes import replicas_of
from programs import LARGE_MLP, REPOSITORY, RESNET18, TINY_MLP, Model, Programs, Server, Variant
from tables import Table, number, print_machine

sys.path.insert(0, str(REPOSITORY / "tests/models"))

MOST_ROWS = 16
BATCHES = (1, 11)
GOAL = 1.5
PATIENCE = 60  # Seconds for whatever should take far less.
MODELS = (RESNET18, LARGE_MLP, TINY_MLP)


@dataclass(frozen=True)
class Case:
    model: Model
    file: str  # "pt" or "pt2"
    threads: int

    @property
    def name(self) -> str:
        return f"{self.model.name}.{self.file}, {self.threads} thread{'s' * (self.threads > 1)}"

    @property
    def served_as(self) -> str:
        return f"{self.model.name}_{self.file}_{self.threads}"

    def variant(self) -> Variant:
        model = self.model
        if self.file == "pt2":
            model = Model(f"{model.name}_pt2", model.dims, model.outputs)
        return Variant(model, MOST_ROWS, 1,
                       'parameters { key: "INTRA_OP_THREAD_COUNT" '
                       f'value {{ string_value: "{self.threads}" }} }}\n')


def make_package(models: pathlib.Path, name: str) -> None:
    """Compiles a benchmark's model, where that hasn't been done: as large_mlp_pt2, for example."""
    folder = models / f"{name}_pt2"
    if folder.exists():
        return
    import make_models  # With torch, which takes seconds.
    [script] = [model for model in make_models.MODELS
                if model.name == name and "bench" in model.folders]
    model = make_models.dataclasses.replace(script, name=folder.name, platform="torch_aoti",
                                            max_batch_size=MOST_ROWS)
    aside = models / f".making-{folder.name}"
    make_models.shutil.rmtree(aside, ignore_errors=True)
    make_models.write_model(model, aside)
    aside.rename(folder)


class Client:
    def __init__(self, server: Server):
        self._server = server
        self._client = grpcclient.InferenceServerClient(server.address)
        assert self._client.is_server_ready()  # So that the connection is there.

    def time_request(self, case: Case, rows: int) -> float:
        """Seconds until the answer."""
        tensor = grpcclient.InferInput("INPUT__0", [rows, *case.model.dims], "FP32")
        values = numpy.random.default_rng(rows).random((rows, *case.model.dims), numpy.float32)
        tensor.set_data_from_numpy(values)
        begin = time.monotonic()
        self._client.infer(case.served_as, [tensor], client_timeout=PATIENCE)
        return time.monotonic() - begin

    def replace_replica(self) -> None:
        """Ends the only one, and waits until its successor is ready."""
        time.sleep(0.15)  # Longer than a replica that dies at once is held back.
        restarts = self._metric("replica_restarts_total")
        [pid] = replicas_of(self._server.pids[0])
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while self._metric("replica_restarts_total") == restarts or not self._metric(
                "ready_replicas"):
            assert time.monotonic() < end, "no replica gets ready"
            time.sleep(0.01)

    def _metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://{self._server.http}/metrics", timeout=PATIENCE) as text:
            return float(re.search(rf"^millrace_{name}{{.*}} (\S+)$", text.read().decode(),
                                   re.MULTILINE)[1])


@dataclass
class Found:
    first: List[float]  # Seconds, of each round.
    usual: List[float]

    @property
    def ratios(self) -> List[float]:
        return [first / usual for first, usual in zip(self.first, self.usual)]


def measure(programs: Programs, case: Case, rows: int, rounds: int, repeats: int
            ) -> Dict[str, Found]:
    """By what the replica is: a server's first, or one that was replaced."""
    found = {"started": Found([], []), "replaced": Found([], [])}

    def measure_one(client: Client, kind: str) -> None:
        found[kind].first.append(client.time_request(case, rows))
        found[kind].usual.append(statistics.median(
            client.time_request(case, rows) for _ in range(repeats)))

    for _ in range(rounds):
        with programs.server({case.served_as: case.variant()}) as server:
            client = Client(server)
            measure_one(client, "started")
            for _ in range(2):
                client.replace_replica()
                measure_one(client, "replaced")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="servers that are started for a row")
    parser.add_argument("--repeats", type=int, default=15, help="requests after the first one")
    parser.add_argument("--models", type=pathlib.Path, default=REPOSITORY / "build/models/bench")
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build")
    parser.add_argument("--only", default="", help="models whose name holds this")
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE, too")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cpus)
    programs = Programs(options.build.resolve(), options.models.resolve(), cpus)
    cases = [Case(model, file, threads) for model in MODELS for file in ("pt", "pt2")
             for threads in (1, 2)]
    cases = [case for case in cases if options.only in case.name]
    for name in sorted({case.model.name for case in cases if case.file == "pt2"}):
        make_package(options.models, name)
    programs.check()
    print_machine(cpus, options.rounds)
    table = Table("First request of a replica that is ready, of the steady median",
                  ["model", "batch", "replica", "first ms", "median ms", "ratio", "worst", "goal",
                   ""])
    results = []
    for case in cases:
        for rows in BATCHES:
            for kind, found in measure(programs, case, rows, options.rounds,
                                       options.repeats).items():
                ratio = statistics.median(found.ratios)
                table.rows.append([case.name, str(rows), kind,
                                   number(1e3 * statistics.median(found.first)),
                                   number(1e3 * statistics.median(found.usual)), f"{ratio:.2f}",
                                   f"{max(found.ratios):.2f}", f"≤ {GOAL}",
                                   "met" if ratio <= GOAL else "missed"])
                results.append({"model": case.name, "batch": rows, "replica": kind,
                                "first": found.first, "median": found.usual, "ratio": ratio})
    table.print()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
