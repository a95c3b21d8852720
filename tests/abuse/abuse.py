#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A real server on the loopback, attacked over raw sockets while other clients go on asking.

    ./dev abuse                      every attack, with the guard off and on; about ten minutes
    ./dev abuse --only NAME …        some of them
    ./dev abuse --rounds 1 --seconds 3

Every attack is measured beside a control run, in turn: the same attacker sends the same to a sink, so
what it takes of the machine itself is in both. A bound that doesn't hold is marked, and makes the
exit code 1. What gRPC 1.51 can't withstand by itself is known (KNOWN), and is a failure only where
the guard is on.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field

FOLDER = pathlib.Path(__file__).resolve().parent
for each in ("integration", "models", "benchmarks"):
    sys.path.insert(0, str(FOLDER.parent / each))

import attacks  # noqa: E402
import client  # noqa: E402
from server_process import BIN, MODELS, Server, eventually  # noqa: E402
from sink import sink  # noqa: E402
from tables import Table, number  # noqa: E402

GUARDED = "127.0.0.1:0?guard=on"
RATE = 100  # Requests per second of the other clients.
MIB = 1 << 20

# What holds of the server whatever comes in. An attacker's bytes cost something, as they cost the
# sink; what must not be is that few of them cost much.
MOST_RATIO = 2.0  # Of the others' p99, to the control run's,
FLOOR_MS = 5.0  # unless it is below this, which two busy cores make of anything.
MOST_MIB = 128  # Of memory that the server has more than before, while it lasts.
# Attacks that take more than that for a reason: one message may have 64 MiB (--max-message-bytes),
# connections have their buffers, and gRPC 1.51 holds a client to its limit of calls only where that
# has acknowledged the limit: one that takes no answers has 20,000 open here, of 15 KiB each.
MORE_MIB = {"bomb": 300, "idle": 600, "huge_message": 300, "unread": 400}
MOST_CPU_PER_MIB = 0.15  # Seconds of the server's CPU for each MiB sent, above a second in all.
# What needs the guard, by gRPC's own reader.
KNOWN = {"header_string", "continuations", "many_headers", "rapid_reset", "settings_frames", "pings",
         "empty_data"}


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Memory(threading.Thread):
    """The most that the server has while the block runs."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self._server, self._over = server, threading.Event()
        self.peak = server.resident_bytes()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()

    def run(self):
        while not self._over.wait(0.02):
            with contextlib.suppress(OSError):
                self.peak = max(self.peak, self._server.resident_bytes())


@contextlib.contextmanager
def attacking(name, address, seconds):
    """Runs an attack beside the block; its report is in the list that is given."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", sys.executable, str(FOLDER / "attacks.py"), name, address,
         str(seconds)], stdout=subprocess.PIPE, text=True)
    report = []
    try:
        yield report
        out, _ = process.communicate(timeout=seconds + 60)
        assert process.returncode == 0, f"the attacker of {name} failed"
        report.append(json.loads(out))
    finally:
        process.kill()
        process.wait()


@dataclass
class Seen:
    """Of one run."""

    p99_ms: float
    errors: int
    cpu: float
    mib: float
    sent_mib: float
    lost: int
    connections: int
    refused: int


@dataclass
class Result:
    attack: str
    guard: bool
    control: list = field(default_factory=list)
    attacked: list = field(default_factory=list)
    alive: bool = True

    def median(self, which, runs):
        return statistics.median(getattr(run, which) for run in runs)

    @property
    def p99_ms(self):
        return self.median("p99_ms", self.attacked)

    @property
    def control_ms(self):
        return self.median("p99_ms", self.control)

    def broken(self):
        """The bounds that don't hold, in words."""
        words = []
        if not self.alive:
            words.append("the server ended")
        if any(run.errors for run in self.attacked):
            words.append("errors of others")
        if self.p99_ms > max(FLOOR_MS, MOST_RATIO * self.control_ms):
            words.append("p99")
        if self.median("mib", self.attacked) > MORE_MIB.get(self.attack, MOST_MIB):
            words.append("memory")
        cpu = self.median("cpu", self.attacked) - self.median("cpu", self.control)
        if cpu > 1 + MOST_CPU_PER_MIB * self.median("sent_mib", self.attacked):
            words.append("CPU")
        return words

    def fails(self):
        return bool(self.broken()) and (self.guard or self.attack not in KNOWN or not self.alive)


class Abuse:
    def __init__(self, server, seconds):
        self.server, self.seconds = server, seconds
        self.listening = {False: server.addresses[0], True: server.addresses[1]}

    def look(self, name, target, victims):
        """One run: the attack goes to `target`, the other clients to `victims`."""
        before, cpu = self.server.resident_bytes(), cpu_seconds(self.server.pid)
        with Memory(self.server) as memory, attacking(name, target, self.seconds) as report:
            done = subprocess.run(
                [str(BIN.parent / "benchmarks/benchmark-load"), "--target", victims, "--model",
                 "identity", "--dims", "1,16", "--calls", "64", "--rate", str(RATE), "--seed", "1",
                 "--count-errors", "--warmup", "0.3", "--seconds", str(self.seconds - 0.5)],
                capture_output=True, text=True, timeout=self.seconds + 120, check=False)
        cpu = cpu_seconds(self.server.pid) - cpu
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        attack = report[0]
        return Seen(found["p99_us"] / 1e3, sum(found["errors"].values()), cpu,
                    (memory.peak - before) / MIB, attack["sent"] / MIB, attack["lost"],
                    attack["connections"], attack["refused"])

    def measure(self, name, guard, rounds):
        result = Result(name, guard)
        with sink() as nowhere:
            for turn in range(rounds):
                order = [(result.control, nowhere), (result.attacked, self.listening[guard])]
                for runs, target in order if turn % 2 == 0 else reversed(order):
                    runs.append(self.look(name, target, self.listening[guard]))
                    self.settle()
        result.alive = self.server.process.poll() is None
        return result

    def settle(self):
        """Waits until the attacker's connections have gone and the server has nothing to do."""
        def is_idle():
            cpu = cpu_seconds(self.server.pid)
            time.sleep(0.3)
            return (cpu_seconds(self.server.pid) - cpu < 0.1 and
                    self.server.metric("millrace_connections") <= 2)
        eventually(is_idle, "the server is still busy with what an attacker left")


@contextlib.contextmanager
def server(folder, *flags):
    """One with two doors, the second of which has a guard."""
    most = ["--max-connections", "4500", "--max-connections-per-peer", "4500"]
    with Server(folder, ["identity"], listen=("127.0.0.1:0", GUARDED),
                flags=[*most, *flags]) as running:
        running.stub.ModelInfer(client.numbered("identity", 0))
        yield running


def table(results):
    found = Table("Other clients, and what it costs, while a client does harm",
                  ["attack", "guard", "sent MiB", "closed", "p99 ms", "control ms", "ratio", "CPU s",
                   "control s", "memory MiB", "bounds"])
    for one in results:
        broken = one.broken()
        words = "hold" if not broken else ", ".join(broken) + (
            "" if one.fails() else " (known: gRPC's own reader)")
        closed = f"{one.median('lost', one.attacked):.0f} of " \
                 f"{one.median('connections', one.attacked):.0f}"
        found.rows.append([
            one.attack, "on" if one.guard else "off",
            number(one.median("sent_mib", one.attacked)), closed, number(one.p99_ms),
            number(one.control_ms), f"{one.p99_ms / one.control_ms:.2f}",
            f"{one.median('cpu', one.attacked):.2f}", f"{one.median('cpu', one.control):.2f}",
            number(one.median("mib", one.attacked)), words])
    return found


def main():
    parser = argparse.ArgumentParser(prog="./dev abuse", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=attacks.NAMES, default=attacks.NAMES)
    parser.add_argument("--seconds", type=float, default=5, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="of each attack and its control")
    parser.add_argument("--guard", choices=("off", "on", "both"), default="both")
    arguments = parser.parse_args()
    guards = {"off": (False,), "on": (True,), "both": (False, True)}[arguments.guard]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if not MODELS.exists():
        raise SystemExit(f"{MODELS} is missing; ./dev abuse makes it")
    results = []
    with tempfile.TemporaryDirectory() as folder, server(folder) as running:
        abuse = Abuse(running, arguments.seconds)
        for name in arguments.only:
            for guard in guards:
                results.append(abuse.measure(name, guard, arguments.rounds))
                print(f"{name}, guard {'on' if guard else 'off'}: "
                      f"{', '.join(results[-1].broken()) or 'bounds hold'}", flush=True)
    table(results).print()
    sys.exit(1 if any(one.fails() for one in results) else 0)


if __name__ == "__main__":
    main()
