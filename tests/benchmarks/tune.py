#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Measures what `millrace tune` chooses beside fixed numbers of threads, under CPU quotas.

    ./dev bench tune                         all quotas and models, about a quarter of an hour
    ./dev bench tune --quotas 1.5 --models tiny_mlp,transformer

For each model and quota the command tunes within a group that has the quota; then one server has
every model with 1, 2, 4, 8 and 16 threads in one replica, and as it was tuned, and each is loaded in
turn under the quota. The last column is what the usual default, a thread for each core of the host,
makes of the best of these. At the last quota every model is tuned a second time, and both plans are
compared.

Quotas take root and a cpu cgroup that may be written; without one only those of whole cores are
measured, by affinity.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import time
from typing import Dict, List, Sequence

from programs import (LARGE_MLP, REPOSITORY, RESNET18, TINY_MLP, TRANSFORMER, Load, Programs,
                      Variant)
from tables import Table, in_turn, number, print_machine

MODELS = {model.name: model for model in (RESNET18, LARGE_MLP, TRANSFORMER, TINY_MLP)}
BATCHES = {"resnet18": 8, "large_mlp": 16, "transformer": 16, "tiny_mlp": 32}
THREADS = (1, 2, 4, 8, 16)
PERIOD_US = 100_000
GROUPS = pathlib.Path("/sys/fs/cgroup")


class CpuGroup:
    """A cpu cgroup for what is measured; `why_not` says why there is none."""

    def __init__(self):
        self._v1 = (GROUPS / "cpu").is_dir()
        self.path = (GROUPS / "cpu" if self._v1 else GROUPS) / f"millrace-bench-{os.getpid()}"
        self.why_not = ""
        try:
            self.path.mkdir()
            self.limit(None)
        except OSError as error:
            self.why_not = f"no cpu cgroup can be made here: {error}"
            self.remove()

    def limit(self, cores) -> None:
        quota = int(cores * PERIOD_US) if cores else None
        if self._v1:
            (self.path / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self.path / "cpu.cfs_quota_us").write_text(str(quota or -1))
        else:
            (self.path / "cpu.max").write_text(f"{quota or 'max'} {PERIOD_US}")

    def enter(self) -> None:
        """In a process that is to run inside, before its program."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        deadline = time.monotonic() + 5
        while self.path.is_dir() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            time.sleep(0.01)


class Affinity:
    """The same where there are no groups: so many of the cores."""

    def __init__(self, cpus: Sequence[int]):
        self._cpus = cpus
        self._inside: List[int] = []
        self.limit(None)

    def limit(self, cores) -> None:
        self._count = int(cores or len(self._cpus))
        for pid in self._inside:
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(task), self._cpus[:self._count])

    def enter(self) -> None:
        os.sched_setaffinity(0, self._cpus[:self._count])

    def remove(self) -> None:
        pass


def name_of(plan: Dict[str, object]) -> str:
    """As in the tables of `millrace tune`: replicas × threads, batch, and what isn't usual."""
    words = [f"{plan['replicas']} × {plan['threads']}, batch {plan['batch']}"]
    words += ["channels last"] * plan["channels_last"] + ["bf16"] * plan["bfloat16"]
    words += [word for word in (plan["engine"], plan["wait"]) if word in ("aotinductor", "active")]
    return ", ".join(words)


def variant_of(model: str, plan: Dict[str, object]) -> Variant:
    """What a plan says, in a config."""
    execution = f"channels_last: {str(plan['channels_last']).lower()} wait: {plan['wait'].upper()}"
    return fixed(model, plan["replicas"], plan["threads"], plan["batch"],
                 f"millrace {{ execution {{ {execution} }} }}\n")


def fixed(model: str, replicas: int, threads: int, batch: int, config: str = "") -> Variant:
    threads_config = ('parameters { key: "INTRA_OP_THREAD_COUNT" '
                      f'value {{ string_value: "{threads}" }} }}\n')
    return Variant(MODELS[model], batch, replicas, threads_config + config)


class Bench:
    def __init__(self, programs: Programs, group, arguments: argparse.Namespace):
        self.programs = programs
        self.group = group
        self.arguments = arguments
        self.folder = programs.build / "bench-tune"
        self.folder.mkdir(exist_ok=True)
        self.plans: Dict[tuple, Dict[str, object]] = {}  # By model, quota and run.
        self.rates: Dict[tuple, List[List[float]]] = {}  # By model and quota: of each variant.

    def tune(self, model: str, quota: float, run: int) -> None:
        report = self.folder / "report.json"
        self.group.limit(quota)
        command = [self.programs.build / "bin/millrace-server", "tune",
                   self.programs.models / model, "--budget", f"{self.arguments.budget}s",
                   "--json", report, "--plan", self.folder / "plan.json"]
        (self.folder / "plan.json").unlink(missing_ok=True)
        done = subprocess.run([str(word) for word in command], preexec_fn=self.group.enter,
                              text=True, capture_output=True,
                              timeout=10 * self.arguments.budget + 300)
        if done.returncode != 0:
            raise SystemExit(f"tuning {model} failed: {done.stdout}{done.stderr}")
        [tuned] = json.loads(report.read_text())["models"]
        self.plans[model, quota, run] = tuned["chosen"]
        print(f"{model} under {quota:g} cores: {name_of(tuned['chosen'])}"
              f"{'' if tuned['certain'] else ' (not certain)'}", flush=True)

    def measure(self, quotas: Sequence[float], models: Sequence[str]) -> None:
        variants: Dict[str, Variant] = {}
        for model in models:
            for threads in THREADS:
                variants[f"{model}_{threads}"] = fixed(model, 1, threads, BATCHES[model])
        for (model, quota, run), plan in self.plans.items():
            variants[f"{model}_at_{quota:g}_{run}"] = variant_of(model, plan)
        self.group.limit(None)
        with self.programs.server(variants, preexec_fn=self.group.enter) as server:
            for quota in quotas:
                self.group.limit(quota)
                for model in models:
                    names = [f"{model}_{threads}" for threads in THREADS]
                    names += [f"{model}_at_{quota:g}_{run}" for run in (0, 1)
                              if (model, quota, run) in self.plans]
                    self.rates[model, quota] = in_turn(
                        self.arguments.rounds,
                        *(lambda name=name: self.load(server, name, variants[name])
                          for name in names))
            self.group.limit(None)

    def load(self, server, name: str, variant: Variant) -> float:
        # So many under way that a full batch waits while the replicas compute.
        streams = 4
        window = -(-3 * variant.batch * variant.replicas // streams)
        return server.load_variant(name, Load(streams=streams, window=window),
                                   self.arguments.seconds, 0.5).per_second

    def print(self, quotas: Sequence[float], models: Sequence[str]) -> List[Dict[str, object]]:
        cores = os.cpu_count()
        table = Table("Rows/s by threads of one replica, and as it was tuned",
                      ["model", "quota", *(str(threads) for threads in THREADS), "tuned", "plan",
                       "of the best fixed", f"{cores} threads, of the best"])
        repeats = Table("Tuned twice", ["model", "quota", "first", "second", "second, of the first"])
        results = []
        for model in models:
            for quota in quotas:
                rates = self.rates[model, quota]
                medians = [statistics.median(each) for each in rates]
                best = max(medians[:len(THREADS)])
                tuned = medians[len(THREADS)]
                # The usual default, as far as it is among those that were measured.
                usual = medians[min(range(len(THREADS)), key=lambda i: abs(THREADS[i] - cores))]
                plan = self.plans[model, quota, 0]
                table.rows.append([model, f"{quota:g}", *map(number, medians[:len(THREADS)]),
                                   number(tuned), name_of(plan), f"{tuned / best:.2f}",
                                   f"{usual / max(best, tuned):.2f}"])
                results.append({"model": model, "quota": quota, "plan": plan,
                                "fixed": dict(zip(THREADS, rates)), "tuned": rates[len(THREADS)],
                                "of_best_fixed": tuned / best})
                if (model, quota, 1) in self.plans:
                    again = self.plans[model, quota, 1]
                    ratio = statistics.median(
                        b / a for a, b in zip(rates[len(THREADS)], rates[len(THREADS) + 1]))
                    repeats.rows.append([model, f"{quota:g}", name_of(plan), name_of(again),
                                         f"{ratio:.2f}"])
                    results[-1].update({"again": again, "of_first": ratio})
        table.print()
        repeats.print()
        return results


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench tune", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotas", default="0.5,1,1.5,2",
                        type=lambda text: [float(word) for word in text.split(",")])
    parser.add_argument("--models", default=",".join(MODELS),
                        type=lambda text: text.split(","))
    parser.add_argument("--budget", type=float, default=15, help="seconds of each tuning (15)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is loaded (3)")
    parser.add_argument("--seconds", type=float, default=1, help="of each load (1)")
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE, too")
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build")
    parser.add_argument("--from-models", type=pathlib.Path,
                        default=REPOSITORY / "build/models/bench")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cpus = sorted(os.sched_getaffinity(0))
    programs = Programs(arguments.build.resolve(), arguments.from_models.resolve(), cpus)
    programs.check()
    group, quotas = CpuGroup(), arguments.quotas
    if group.why_not:
        print(f"{group.why_not}; so only whole cores are measured, by affinity")
        group, quotas = Affinity(cpus), [quota for quota in quotas if quota == int(quota)]
    print_machine(cpus, arguments.rounds)
    bench = Bench(programs, group, arguments)
    try:
        for quota in quotas:
            for model in arguments.models:
                bench.tune(model, quota, 0)
        for model in arguments.models:
            bench.tune(model, quotas[-1], 1)
        bench.measure(quotas, arguments.models)
        results = bench.print(quotas, arguments.models)
    finally:
        group.remove()
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
