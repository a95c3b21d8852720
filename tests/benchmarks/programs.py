# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The programs that a benchmark runs, each ended with the `with` block that started it."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Sequence

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
STARTUP_SECONDS = 300
# Idle threads of libtorch's teams sleep; the server gives its workers the same.
WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True)
class Model:
    name: str  # Of its folder in the repository of models.
    dims: Sequence[int]  # Of its one input, without the batch's.
    outputs: int  # Elements of its one output, without the batch's.


IDENTITY = Model("identity", [16], 16)
TINY_MLP = Model("tiny_mlp", [32], 8)
LARGE_MLP = Model("large_mlp", [1024], 1000)
RESNET18 = Model("resnet18", [3, 224, 224], 1000)
TRANSFORMER = Model("transformer", [64, 256], 16)


@dataclass(frozen=True)
class Load:
    """The shape of a closed loop: so many unary calls, or streams with so many under way each. With
    a rate it is an open one: requests are due at random times, whatever the answers do."""

    calls: int = 0  # In an open loop the most at a time.
    streams: int = 0
    window: int = 1
    rate: float = 0  # Per second; 0: a closed loop.
    seed: int = 0  # Of the open loop's times.

    def __str__(self) -> str:
        if self.rate:
            through = f"{self.streams} streams" if self.streams else "unary"
            return f"{through}, Poisson {self.rate:,.0f}/s"
        if self.calls:
            return f"unary × {self.calls}"
        return f"{self.streams} stream{'s' if self.streams > 1 else ''} × window {self.window}"


@dataclass(frozen=True)
class Measured:
    """What one run of the load generator measured."""

    per_second: float
    p50_us: float
    p99_us: float
    response_bytes: int
    own_cpu_us: float  # CPU time per request, of the generator
    cpu_us: Sequence[float]  # and of each process that was named.
    fairness: float  # Jain's index over the streams.
    errors: Dict[str, int]  # By status code; only an open loop counts them.
    late_p99_us: float  # How late an open loop's requests were sent.
    stolen: float  # What part of the cores' time the host gave to others.


@contextlib.contextmanager
def running(command: Sequence[object], **options) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([str(word) for word in command], text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def kill_after(process: subprocess.Popen, seconds: float) -> Iterator[None]:
    """Ends the process unless the block is left in time, so that no read waits for ever."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Programs:
    """Starts what was built in `build`; what it writes lies in build/bench-models. Another worker
    than the server's own takes the place of it."""

    def __init__(self, build: pathlib.Path, models: pathlib.Path, cpus: Sequence[int],
                 worker: str = "bin/millrace-worker"):
        self.build = build
        self.models = models
        self.cpus = cpus
        self.worker = build / worker

    def check(self) -> None:
        needed = [self.build / "bin/millrace-server", self.worker,
                  *(self.build / "benchmarks" / f"benchmark-{name}"
                    for name in ("load", "echo", "loop")), self.models]
        for path in needed:
            if not path.exists():
                raise SystemExit(f"{path} is missing; ./dev bench makes it")

    @contextlib.contextmanager
    def server(self, variants: Dict[str, "Variant"],
               flags: Sequence[object] = (), **options) -> Iterator["Server"]:
        """A server with a model for each variant, under the variant's name; `options` are those of
        its process."""
        repository = self.build / "bench-models"
        shutil.rmtree(repository, ignore_errors=True)
        for name, variant in variants.items():
            variant.write(self.models, repository / name, name)
        command = [self.build / "bin/millrace-server", "--model-repository", repository,
                   "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
                   "--drain-delay", "0s", "--worker", self.worker, *flags]
        with running(command, stderr=subprocess.PIPE, **options) as process:
            yield Server(self, process, variants)

    @contextlib.contextmanager
    def echo(self, *door: str) -> Iterator["Target"]:
        """At gRPC's own door, or at the server's `plain`, `guard` or `check`."""
        command = [self.build / "benchmarks/benchmark-echo", *door]
        with running(command, stdout=subprocess.PIPE) as process:
            with kill_after(process, STARTUP_SECONDS):
                address = process.stdout.readline().strip()
            yield Target(self, address, [process.pid])

    @contextlib.contextmanager
    def loop(self, model: Model) -> Iterator["Loop"]:
        command = [self.build / "benchmarks/benchmark-loop", self.models / model.name / "1/model.pt",
                   "--dims", ",".join(map(str, model.dims)),
                   "--cpus", ",".join(map(str, self.cpus))]
        with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                     env={**WORKER_ENVIRONMENT, **os.environ}) as process:
            yield Loop(process)


@dataclass(frozen=True)
class Variant:
    """A model with a batch size, a number of replicas on CPUs (none: the server decides), and
    further lines of its config."""

    model: Model
    batch: int
    replicas: Optional[int]
    config: str = ""

    def write(self, models: pathlib.Path, folder: pathlib.Path, name: str) -> None:
        config = (models / self.model.name / "config.pbtxt").read_text()
        for pattern, value in ((r'name: "\w+"', f'name: "{name}"'),
                               (r"max_batch_size: \d+", f"max_batch_size: {self.batch}"),
                               (r"dynamic_batching .*", "dynamic_batching { }")):
            config, count = re.subn(pattern, value, config, count=1)
            assert count == 1, f"{self.model.name}'s config has no {pattern}"
        if self.replicas:
            config += f"instance_group [ {{ count: {self.replicas} kind: KIND_CPU }} ]\n"
        config += self.config
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(config)
        for file in (models / self.model.name / "1").iterdir():
            shutil.copy(file, folder / "1")


class Target:
    """Something that answers inference requests."""

    def __init__(self, programs: Programs, address: str, pids: Sequence[int]):
        self._programs = programs
        self.address = address
        self.pids = pids

    def load(self, shape: Load, seconds: float, name: str, model: Model,
             warmup: float = 0.3) -> Measured:
        command = [self._programs.build / "benchmarks/benchmark-load", "--target", self.address,
                   "--model", name, "--dims", ",".join(map(str, (1, *model.dims))),
                   "--warmup", warmup, "--seconds", seconds,
                   "--cpu-of", ",".join(map(str, self.pids))]
        command += (["--calls", shape.calls] if shape.calls else
                    ["--streams", shape.streams, "--window", shape.window])
        if shape.rate:
            command += ["--rate", shape.rate, "--seed", shape.seed, "--count-errors"]
        begin, stolen = time.monotonic(), stolen_seconds(self._programs.cpus)
        done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                              timeout=seconds + warmup + 120)
        stolen = stolen_seconds(self._programs.cpus) - stolen
        stolen /= (time.monotonic() - begin) * len(self._programs.cpus)
        if done.returncode != 0:
            raise SystemExit(f"loading {name} with {shape} failed: {done.stderr.strip()}")
        found = json.loads(done.stdout)
        # CPU times are of the wall time; the rate is of whole batches.
        requests = max(1.0, found["per_second"] * found["wall"])
        return Measured(found["per_second"], found["p50_us"], found["p99_us"],
                        found["response_bytes"], found["own_cpu"] / requests * 1e6,
                        [cpu / requests * 1e6 for cpu in found["cpu_of"]], found["fairness"],
                        found["errors"], found["late_p99_us"], stolen)


class Server(Target):
    """millrace-server. `pids` are its own, and then those of the workers."""

    def __init__(self, programs: Programs, process: subprocess.Popen, variants: Dict[str, Variant]):
        self._log: List[str] = []
        self._process = process
        with kill_after(process, STARTUP_SECONDS):
            self._read_until_ready()
        # From now on read so that the server is never held up.
        threading.Thread(target=lambda: self._log.extend(process.stderr), daemon=True).start()
        address = re.search(r"gRPC listens on (\S+)", "".join(self._log)).group(1)
        self.http = re.search(r"HTTP listens on (\S+)", "".join(self._log)).group(1)
        super().__init__(programs, address, [process.pid, *workers_of(process.pid)])
        self._variants = variants

    def _read_until_ready(self) -> None:
        for line in self._process.stderr:
            self._log.append(line)
            if re.search(r"\bready$", line.rstrip()):
                return
        raise SystemExit("millrace-server did not start:\n" + "".join(self._log))

    def load_variant(self, name: str, shape: Load, seconds: float, warmup: float = 0.3) -> Measured:
        return self.load(shape, seconds, name, self._variants[name].model, warmup)


class Loop:
    """benchmark-loop: the raw libtorch loop."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        self.pid = process.pid

    def rows_per_second(self, batch: int, processes: int, threads: int, seconds: float) -> float:
        self._process.stdin.write(f"{batch} {processes} {threads} {seconds}\n")
        self._process.stdin.flush()
        with kill_after(self._process, STARTUP_SECONDS + seconds):
            line = self._process.stdout.readline()
        if not line:
            raise SystemExit("benchmark-loop ended")
        return float(line)


def stolen_seconds(cpus: Sequence[int]) -> float:
    """CPU time of these cores that the host of a virtual machine has given to others so far."""
    cores = re.findall(r"^cpu(\d+) (.*)$", pathlib.Path("/proc/stat").read_text(), re.MULTILINE)
    return sum(int(times.split()[7]) for cpu, times in cores
               if int(cpu) in cpus) / os.sysconf("SC_CLK_TCK")


def workers_of(server: int) -> List[int]:
    """The processes of the replicas and templates of a server."""
    workers = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == server:
                workers.append(int(stat.parent.name))
    return workers
