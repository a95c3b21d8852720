#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A model over a folder of JPEG pictures, by pools of replicas; docs/benchmarks.md explains.

    ./dev bench pool                         300 pictures
    ./dev bench pool --images 3000 --docs    3,000, and the figures and plots go into docs/

Every setting maps the pictures a part at a time, in turn with the others; beside Millrace a pool of
Python processes does the same (python_pool.py). A ratio is the median over the parts.
"""

import abc
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import plot_pool
from photographs import make_pictures
from processes import PeakMemory, cpu_seconds, fair_mib, private_mib, replicas_of
from programs import (REPOSITORY, RESNET18, Programs, Server, Variant, kill_after, running,
                      stolen_seconds, workers_of)
from tables import Ratio, Table, machine, number, print_machine, undisturbed

SIDE = RESNET18.dims[-1]
BATCH = 4
# What pictures.row_of() does.
TRANSFORM = f"millrace {{ transform {{ image {{ fit: LETTERBOX scale: {1 / 255} }} }} }}\n"
WINDOW = 32  # Of `millrace map`, unless told otherwise.
WARMUP = 16  # Pictures that are sent before the measuring.
REPEATS = 2  # Of a measurement that was disturbed, at most.
PATIENCE = 1800  # Seconds that mapping one part may take.
REPLICAS_PER_GPU = 1, 2, 4
GOAL_SCALING = 1.9
GOAL_RATE = 1.3
GOAL_MEMORY = 0.5

DOCUMENT = REPOSITORY / "docs/benchmarks.md"
FIGURES = REPOSITORY / "docs/pool.json"
IMAGES = REPOSITORY / "docs/images"
MARKS = "<!-- ./dev bench pool --docs writes what follows -->", "<!-- to here -->"


@dataclass
class Found:
    """What mapping one part of the pictures showed."""

    pool: int
    seconds: float
    cpu_seconds: float  # Of all processes.
    transform_ms: List[float]  # Of each picture.
    inference_ms: List[float]
    batch: float  # In which a picture ran, in the mean.
    private_mib: List[float]  # Of each replica or process of the pool.
    mib: Dict[str, float]  # Of all processes, by what they do; what they share counts once.
    stolen: float
    outputs: np.ndarray  # Of each picture, in their order.

    @property
    def rate(self) -> float:
        return len(self.outputs) / self.seconds

    @property
    def total_mib(self) -> float:
        return sum(self.mib.values())


# ---- Where it runs ----

@contextlib.contextmanager
def on_cores(cpus: Sequence[int]) -> Iterator[None]:
    """What is started meanwhile runs there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def environment(**changes: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def multi_process_service(folder: pathlib.Path) -> Iterator[None]:
    """NVIDIA's MPS, for what is started meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with environment(CUDA_MPS_PIPE_DIRECTORY=str(folder), CUDA_MPS_LOG_DIRECTORY=str(folder)):
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True)
        try:
            yield
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, check=True)


# ---- What is compared ----

@dataclass(frozen=True)
class Place:
    """Where it is measured."""

    programs: Programs
    folder: pathlib.Path  # For what is written meanwhile.

    def cpus(self, cores: int) -> Sequence[int]:
        return self.programs.cpus[:cores]

    def write_list(self, files: Sequence[pathlib.Path]) -> pathlib.Path:
        path = self.folder / "list.txt"
        path.write_text("".join(f"{file}\n" for file in files))
        return path


@dataclass(frozen=True)
class Setting(abc.ABC):
    name: str
    cores: int
    pool: Optional[int] = None  # Replicas, or processes; none: what the server chooses.

    @abc.abstractmethod
    def map(self, place: Place, files: Sequence[pathlib.Path]) -> Found:
        """Maps the files, in processes that are started for it."""


@dataclass(frozen=True)
class Millrace(Setting):
    """millrace-server with a pool of replicas, and `millrace map`."""

    workers: int = 0  # --transform-workers; 0: its default.
    window: int = WINDOW
    unordered: bool = False
    config: str = ""
    flags: Tuple[str, ...] = ()
    with_mps: bool = False

    def map(self, place: Place, files: Sequence[pathlib.Path]) -> Found:
        variant = Variant(RESNET18, BATCH, self.pool, TRANSFORM + self.config)
        flags = ["--transform-workers", self.workers, *self.flags]
        with contextlib.ExitStack() as stack:
            stack.enter_context(on_cores(place.cpus(self.cores)))
            if self.with_mps:
                stack.enter_context(multi_process_service(place.folder / "mps"))
            server = stack.enter_context(place.programs.server({RESNET18.name: variant}, flags))
            self._send(place, server, files[:WARMUP])
            return self._measure(place, server, files)

    def _measure(self, place: Place, server: Server, files: Sequence[pathlib.Path]) -> Found:
        cpus = place.cpus(self.cores)
        begin, cpu, stolen = time.monotonic(), cpu_seconds(server.pids), stolen_seconds(cpus)
        client_cpu, client_mib = self._send(place, server, files)
        seconds = time.monotonic() - begin
        cpu = cpu_seconds(server.pids) - cpu + client_cpu
        stolen = (stolen_seconds(cpus) - stolen) / (seconds * len(cpus))
        replicas = replicas_of(server.pids[0])
        records = {record["file"]: record for record in
                   map(json.loads, (place.folder / "records").read_text().splitlines())}
        found = [records[str(file)] for file in files]
        rows = [record["batch_size"] for record in found]
        timings = [record["timings"] for record in found]
        return Found(
            pool=len(replicas), seconds=seconds, cpu_seconds=cpu, stolen=stolen,
            transform_ms=[(each["transform_us"] + each["fill_us"] / size) / 1e3
                          for each, size in zip(timings, rows)],
            inference_ms=[each["execute_us"] / size / 1e3 for each, size in zip(timings, rows)],
            batch=statistics.mean(rows), private_mib=list(map(private_mib, replicas)),
            mib=self._memory(server.pids, replicas, client_mib),
            outputs=np.array([record["outputs"][0]["data"] for record in found], np.float32))

    @staticmethod
    def _memory(pids: Sequence[int], replicas: Sequence[int], client: float) -> Dict[str, float]:
        templates = set(pids[1:]) - set(replicas)
        return {"server": fair_mib(pids[0]), "template": sum(map(fair_mib, templates)),
                "pool": sum(map(fair_mib, replicas)), "client": client}

    def _send(self, place: Place, server: Server,
              files: Sequence[pathlib.Path]) -> Tuple[float, float]:
        """Maps the files; returns the client's CPU seconds and the most memory that it had, in MiB.
        """
        command = [place.programs.build / "bin/millrace", "map", f"@{place.write_list(files)}",
                   "--url", server.address, "--model", RESNET18.name, "--window", self.window,
                   "--output", place.folder / "records", "--overwrite",
                   *(["--unordered"] if self.unordered else [])]
        with running(command, stderr=subprocess.PIPE) as process:
            with kill_after(process, PATIENCE), PeakMemory(process.pid) as memory:
                said = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{self.name}: millrace map returned {process.returncode}: {said}")
        return used.ru_utime + used.ru_stime, memory.mib


@dataclass(frozen=True)
class PythonPool(Setting):
    """python_pool.py, with further options of it."""

    options: Tuple[str, ...] = ()
    batch: int = 1

    def map(self, place: Place, files: Sequence[pathlib.Path]) -> Found:
        cpus = place.cpus(self.cores)
        outputs = place.folder / "outputs.npy"
        command = [sys.executable, pathlib.Path(__file__).with_name("python_pool.py"),
                   place.programs.models / RESNET18.name / "1/model.pt", place.write_list(files),
                   "--processes", self.pool, "--side", SIDE, "--rows", self.batch,
                   "--outputs", outputs, *self.options]
        with on_cores(cpus), running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) \
                as process, kill_after(process, PATIENCE):
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"{self.name}: python_pool.py failed")
            pool = workers_of(process.pid)
            # Beside the pool's processes there may be one that watches their semaphores.
            own = sorted(pool, key=private_mib)[-self.pool:]
            everybody = [process.pid, *pool]
            cpu, stolen = cpu_seconds(everybody), stolen_seconds(cpus)
            process.stdin.write("\n")
            process.stdin.flush()
            said = json.loads(process.stdout.readline())
            found = Found(
                pool=self.pool, seconds=said["seconds"],
                cpu_seconds=cpu_seconds(everybody) - cpu, transform_ms=said["transform_ms"],
                inference_ms=said["inference_ms"], batch=self.batch,
                private_mib=list(map(private_mib, own)),
                mib={"pool": sum(map(fair_mib, pool)), "client": fair_mib(process.pid)},
                stolen=(stolen_seconds(cpus) - stolen) / (said["seconds"] * len(cpus)),
                outputs=np.load(outputs))
            process.stdin.close()  # It ends its processes now.
            process.wait()
            return found


# ---- The settings ----

PYTHON = "Python pool"


def default(cores: int) -> Setting:
    return Millrace("Millrace, as it comes", cores,
                    config="instance_group [ { kind: KIND_CPU } ]\n")


def python(start: str, cores: int, pool: int) -> Setting:
    return PythonPool(f"{PYTHON}, {start}", cores, pool, options=("--start", start))


def coupled(cores: int, pool: int) -> Setting:
    # A picture is only sent when one is answered: whoever is decoded has a replica wait for it.
    return Millrace("Millrace, coupled", cores, pool, workers=pool, window=pool, unordered=True)


def decoupled(cores: int, pool: int, workers: int) -> Setting:
    return Millrace(f"Millrace, {workers} transform worker{'s' if workers > 1 else ''}", cores,
                    pool, workers=workers, window=max(WINDOW, 2 * BATCH * pool))


def settings(cores: int, pools: Sequence[int], workers: Sequence[int]) -> List[Setting]:
    """Those that are compared with each other are neighbours."""
    return list(dict.fromkeys([
        default(1), default(cores), python("fork", cores, cores), python("spawn", cores, cores),
        python("fork", 1, 1),
        PythonPool(f"{PYTHON}, batches of {BATCH}", cores, cores, batch=BATCH),
        PythonPool(f"{PYTHON}, model as loaded", cores, cores, options=("--as-loaded",)),
        *(coupled(cores, pool) for pool in pools),
        *(decoupled(cores, pool, count) for count in workers for pool in pools),
        *(python("fork", cores, pool) for pool in pools),
    ]))


def gpu_settings(cores: int, programs: Programs) -> List[Setting]:
    """Several replicas on each GPU, with and without MPS; nothing where there is no GPU."""
    described = subprocess.run([programs.worker, "--describe"], text=True, capture_output=True,
                               check=True)
    if not json.loads(described.stdout)["gpus"]:
        return []
    with_mps = [False, True] if shutil.which("nvidia-cuda-mps-control") else [False]
    return [Millrace(f"Millrace, {count} per GPU" + (", MPS" if mps else ""), cores,
                     window=2 * BATCH * count,
                     config=f"instance_group [ {{ count: {count} kind: KIND_GPU }} ]\n",
                     # Workers that are shut in can't open MPS' pipes.
                     flags=("--sandbox", "off"), with_mps=mps)
            for count in REPLICAS_PER_GPU for mps in with_mps]


# ---- What comes of it ----

@dataclass
class Result:
    setting: Setting
    parts: List[Found] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def rates(self) -> List[float]:
        return [part.rate for part in self.parts]

    def median(self, name: str) -> float:
        """Of a field of Found, over all pictures, replicas or parts."""
        values = [getattr(part, name) for part in self.parts]
        return float(statistics.median(np.concatenate([np.atleast_1d(each) for each in values])))

    def cpu_use(self) -> float:
        used = sum(part.cpu_seconds for part in self.parts)
        return used / (self.seconds * self.setting.cores)

    def cells(self) -> List[str]:
        rates = self.rates
        return [self.setting.name, str(self.setting.cores), number(self.median("pool")),
                number(statistics.median(rates)), f"{min(rates):.3g}–{max(rates):.3g}",
                f"{self.seconds:.1f}", number(self.median("transform_ms")),
                number(self.median("inference_ms")), number(self.median("batch")),
                f"{self.cpu_use():.0%}", number(self.median("private_mib")),
                number(self.median("total_mib")), f"{self.median('stolen'):.0%}"]

    def json(self) -> Dict[str, object]:
        return {"name": self.setting.name, "cores": self.setting.cores,
                "pool": int(self.median("pool")), "seconds": self.seconds,
                "images_per_second": self.rates, "cpu_use": self.cpu_use(),
                **{name: self.median(name) for name in
                   ("transform_ms", "inference_ms", "batch", "private_mib", "total_mib", "stolen")}}


COLUMNS = ["", "cores", "pool", "images/s", "spread", "total s", "transform ms", "inference ms",
           "batch", "CPU", "private MiB", "memory MiB", "stolen"]


class PoolBench:
    def __init__(self, place: Place, cores: int, rounds: int):
        self.place = place
        self.cores = cores
        self.rounds = rounds
        self.results: Dict[Setting, Result] = {}

    def run(self, compared: Sequence[Setting], pictures: Sequence[pathlib.Path]) -> None:
        self.results = {setting: Result(setting) for setting in compared}
        for turn in range(self.rounds):
            part = pictures[turn::self.rounds]
            for setting in compared if turn % 2 == 0 else reversed(compared):
                found = undisturbed(lambda: setting.map(self.place, part),
                                    REPEATS if self.rounds > 1 else 0)
                self.results[setting].parts.append(found)
                print(f"{turn + 1}/{self.rounds}  {setting.name}, cores: {setting.cores}, pool of "
                      f"{found.pool}: {found.rate:.1f} images/s", flush=True)

    def table(self) -> Table:
        return Table("Pools of replicas", COLUMNS,
                     [result.cells() for result in self.results.values()])

    def memory(self) -> Table:
        """Of the settings that the goals compare."""
        columns = ["server", "template", "pool", "client"]
        table = Table("Memory in MiB, by process", ["", "cores", *columns, "in all"])
        for setting in [default(self.cores), *self._pythons()]:
            parts = self.results[setting].parts
            medians = [statistics.median(part.mib.get(column, 0) for part in parts)
                       for column in columns]
            table.rows.append([setting.name, str(setting.cores),
                               *(number(each) if each else "" for each in medians),
                               number(self.results[setting].median("total_mib"))])
        return table

    def _pythons(self) -> List[Setting]:
        return [python(start, self.cores, self.cores) for start in ("fork", "spawn")]

    def ratio(self, ours: Setting, theirs: Setting, name: str) -> Ratio:
        return Ratio(*([float(np.median(getattr(part, name))) for part in self.results[each].parts]
                       for each in (ours, theirs)))

    def goals(self) -> Table:
        """Python's pool counts as its better way to start."""
        cores, ours = self.cores, default(self.cores)
        pythons = self._pythons()
        faster = max(pythons, key=lambda each: statistics.median(self.results[each].rates))
        table = Table("Goals", ["", "Millrace", "of", "ratio", "spread", "goal", ""])

        def add(what: str, ratio: Ratio, goal: float, at_most: bool = False) -> None:
            met = ratio.median <= goal if at_most else ratio.median >= goal
            table.rows.append([what, *ratio.cells(), f"{'≤' if at_most else '≥'} {goal}",
                               "met" if met else "missed"])

        add(f"images/s on {cores} cores, of one core's", self.ratio(ours, default(1), "rate"),
            GOAL_SCALING * cores / 2)
        add(f"images/s, of {faster.name}", self.ratio(ours, faster, "rate"), GOAL_RATE)
        for what, name in (("private MiB of a replica", "private_mib"), ("MiB in all", "total_mib")):
            leaner = min(pythons, key=lambda each: self.results[each].median(name))
            add(f"{what}, of {leaner.name}", self.ratio(ours, leaner, name), GOAL_MEMORY, True)
        return table

    def disagreement(self) -> float:
        """How far outputs are from those of Python at most, of how much they differ between
        pictures (their standard deviation)."""
        apart = 0.0
        reference = self.results[python("fork", self.cores, self.cores)].parts
        for result in self.results.values():
            for ours, theirs in zip(result.parts, reference):
                apart = max(apart, float(np.abs(ours.outputs - theirs.outputs).max()
                                         / theirs.outputs.std(axis=0).mean()))
        return apart


def report(bench: PoolBench, pictures: int) -> str:
    """What docs/benchmarks.md gets to show."""
    return (f"{pictures:,} pictures in {bench.rounds} parts, {machine(bench.place.programs.cpus)}; "
            f"outputs differ from the Python pool's by at most {bench.disagreement():.2f} of their "
            f"standard deviation over the pictures.\n\n{bench.goals()}\n\n"
            f"Memory in MiB, by process:\n\n{bench.memory()}\n\n{bench.table()}\n")


def write_document(text: str, figures: pathlib.Path, plots: Sequence[pathlib.Path]) -> None:
    begin, end = MARKS
    old = DOCUMENT.read_text()
    before, rest = old.split(begin)
    _, after = rest.split(end)
    DOCUMENT.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
    shutil.copy(figures, FIGURES)
    for plot in plots:
        shutil.copy(plot, IMAGES)


def numbers(text: str) -> List[int]:
    return [int(word) for word in text.split(",")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench pool", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="how many pictures (300)")
    parser.add_argument("--rounds", type=int, default=3,
                        help="in how many parts they are mapped (3)")
    parser.add_argument("--cores", type=int, default=2, help="how many cores to use (2)")
    parser.add_argument("--pools", type=numbers, default=[1, 2, 4, 8], metavar="N,…",
                        help="sizes of pools (1,2,4,8)")
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4], metavar="N,…",
                        help="transform workers (1,2,4)")
    parser.add_argument("--docs", action="store_true",
                        help="write the figures and plots into docs/, too")
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build",
                        help="the build folder; but for --docs nothing is written outside it")
    parser.add_argument("--models", type=pathlib.Path, default=REPOSITORY / "build/models",
                        help="the models' folder")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    build = arguments.build.resolve()
    cpus = sorted(os.sched_getaffinity(0))[:arguments.cores]
    programs = Programs(build, arguments.models.resolve() / "bench", cpus)
    programs.check()
    place = Place(programs, build / "pool")
    pictures = make_pictures(place.folder / "pictures", arguments.images,
                             REPOSITORY / ".cache/vtest.avi", REPOSITORY / ".cache/pictures")
    megabytes = sum(path.stat().st_size for path in pictures) / 1e6
    print(f"{len(pictures)} pictures of {1e3 * megabytes / len(pictures):.0f} kB")
    bench = PoolBench(place, len(cpus), arguments.rounds)
    print_machine(cpus, arguments.rounds)
    bench.run(settings(len(cpus), arguments.pools, arguments.workers)
              + gpu_settings(len(cpus), programs), pictures)
    text = report(bench, len(pictures))
    print(f"\n{text}")
    figures = place.folder / "pool.json"
    goals = bench.goals()
    figures.write_text(json.dumps({
        "images": len(pictures), "parts": arguments.rounds, "machine": machine(cpus),
        "disagreement": bench.disagreement(),
        "goals": [dict(zip(["what", *goals.columns[1:-1], "outcome"], row)) for row in goals.rows],
        "settings": [result.json() for result in bench.results.values()]}, indent=1) + "\n")
    plots = plot_pool.draw(figures, place.folder)
    print("\n".join(str(path) for path in (figures, *plots)))
    if arguments.docs:
        write_document(text, figures, plots)


if __name__ == "__main__":
    main()
