#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A server under load, and everything that can happen to it at once, from a seed.

    ./dev chaos                       a minute
    ./dev chaos --minutes 30 --seed 7

Clients log what they send and receive, and a checker proves from the logs that no answer is lost,
out of order or wrong; the report ends with exit code 1 where it is otherwise.
"""

import argparse
import contextlib
import pathlib
import random
import shutil
import sys
import tempfile
import time

FOLDER = pathlib.Path(__file__).resolve().parent
for each in ("integration", "models"):
    sys.path.insert(0, str(FOLDER.parent / each))

import numpy  # noqa: E402
import obedient  # noqa: E402
import reference  # noqa: E402
import wire  # noqa: E402
from admin import Admin  # noqa: E402
from checker import Checker, Versions  # noqa: E402
from driver import CALL_SECONDS, FIRST_RUNS, Driver, Operator  # noqa: E402
from fleet import Fleet  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from memory_group import MemoryGroup  # noqa: E402
from server_process import PATIENCE, Server, eventually  # noqa: E402
from watch import Watch, children, is_loaded, templates, wait_until_steady  # noqa: E402

CLIENTS = ("steady", "victim", "victim", "hasty", "slow", "poison", "hungry", "canceller")
PERIOD = 0.3  # Seconds between two faults, on average.
WARM = 3  # Seconds of load before it is measured what the server holds.
HEALTHY_AFTER = 60  # Seconds from the last fault on.
LOOKS = 10  # At the server's memory under load.
LAST_SECONDS = 4  # Of load and faults before the drain, which finds them going on.
ROOM = 600 << 20  # Bytes that the server's cgroup leaves.
FLAGS = ("--model-control", "explicit", "--load-model", "*", "--admin-listen", "127.0.0.1:0",
         "--load-timeout", f"{FIRST_RUNS}s",
         # No model counts as unhealthy, which would excuse answers; and a drain outlasts whatever
         # may hang when it begins.
         "--unhealthy-after", f"{HEALTHY_AFTER}s", "--drain-timeout", f"{3 * FIRST_RUNS}s")


def make_table(path):
    """What torch makes of rows for mlp_pt2."""
    inputs = reference.random_inputs("mlp_pt2", wire.TABLE_ROWS, seed=1)
    outputs = reference.outputs("mlp_pt2", inputs)
    numpy.savez(path, inputs=inputs["INPUT__0"].numpy(), outputs=outputs["OUTPUT__0"].numpy())


def percentile(values, fraction):
    return sorted(values)[round(fraction * (len(values) - 1))] if values else 0.0


def spread(seconds):
    p50, p99, most = (1e3 * percentile(seconds, fraction) for fraction in (0.5, 0.99, 1))
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, at most {most:.0f} ms"


class Run:
    """One server, from its start to its drain."""

    def __init__(self, folder, seconds, seed):
        self.folder, self.seconds, self.seed = folder, seconds, seed
        self.random = random.Random(seed)
        self.checker = Checker(Versions())
        self.group = MemoryGroup()
        self.repository = folder / "repository"
        self.resident = []  # Bytes, under load.
        self.drained = "never"
        self.healthy_after = self.limit = self.before = self.after = None

    def run(self):
        obedient.write_repository(self.repository, kernel_kills=not self.group.why_not)
        table = self.folder / "table.npz"
        make_table(table)
        # Not in `folder`, which may be root's alone: workers are nobody, and unpack packages there.
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="millrace-chaos-scratch-"))
        scratch.chmod(0o711)
        server = Server(self.folder, repositories=[self.repository], flags=FLAGS,
                        prefix=self.group.prefix(), env={"TMPDIR": str(scratch)})
        admin = Admin(server.logged(r"operators call (\S+)")[0][1])
        fleet = Fleet(self.folder, self.checker, server, table, self.seed)
        replicas = Watch(admin, server)
        self.driver = Driver(server, admin, fleet, self.checker, replicas, self.repository,
                             self.seed)
        try:
            before = self.warm(server, admin, fleet)
            self.limit = None if self.group.why_not else self.group.leave(ROOM)
            self.torment(server, fleet, self.seconds)
            self.recover(server, admin, fleet, replicas, before)
            self.drain(server, admin, fleet, replicas)
            if left := list(scratch.iterdir()):
                self.checker.violation(f"left in the temporary folder: {left}")
        except Exception as error:  # Most likely since the server has gone.
            self.checker.violation(f"the run broke off: {error!r}", *server.log[-20:])
        finally:
            self.recoveries = replicas.recoveries
            fleet.end_at_once()
            if server.process.poll() is None:
                server.kill()
            self.group.remove()
            shutil.rmtree(scratch)

    def warm(self, server, admin, fleet):
        """Some load without faults; returns what the server holds after it."""
        assert self.serves(server), "not every model is served from the start"
        self.load(fleet, WARM)
        fleet.stop()
        admin.resize(model="work", replicas=1)
        return wait_until_steady(server.pid)

    def load(self, fleet, seconds):
        fleet.start(CLIENTS)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            fleet.tend()
            time.sleep(0.05)

    def torment(self, server, fleet, seconds):
        now = time.monotonic()
        until, next_fault, next_tending, next_look = now + seconds, now + 1, now, now
        fleet.start(CLIENTS)
        while (now := time.monotonic()) < until:
            assert server.process.poll() is None, "the server has ended"
            self.driver.undo_due()
            if now >= next_tending:
                fleet.tend()
                next_tending = now + 0.1
            if now >= next_look:
                self.resident.append(server.resident_bytes())
                next_look = now + self.seconds / LOOKS
            if now >= next_fault:
                self.driver.step()
                next_fault = now + self.random.expovariate(1 / PERIOD)
            time.sleep(0.005)

    def recover(self, server, admin, fleet, replicas, before):
        """Nothing more happens, and soon everything is as it was."""
        self.driver.undo_due(everything=True)

        def tend():
            fleet.tend()
            self.driver.undo_due()
        eventually(lambda: tend() or self.driver.operator.is_idle(),
                   "an operator's call never ends", CALL_SECONDS * (Operator.MOST_WAITING + 1))
        last_fault = time.monotonic()
        with contextlib.suppress(AssertionError):
            eventually(lambda: tend() or (
                replicas.all_ready() and len(templates(server)) == len(wire.MODELS)
                and all(map(is_loaded, templates(server)))
                and self.serves(server)), seconds=HEALTHY_AFTER)
            self.healthy_after = time.monotonic() - last_fault
        if self.healthy_after is None:
            self.checker.violation(
                f"after {HEALTHY_AFTER} s without a fault not everything is healthy: "
                f"{server.http_get('/readyz')}", *replicas.replicas())
        fleet.stop(self.driver.undo_due)
        for late in replicas.late:
            self.checker.violation(late)
        admin.resize(model="work", replicas=1)
        after = wait_until_steady(server.pid)
        self.before, self.after = before, after
        for leak in after.leaks_since(before):
            self.checker.violation(leak)
        self.check_nothing_waits(server)
        if ended := [pid for pid, state in children(server.pid).items() if state in "ZX"]:
            self.checker.violation(f"zombies: {ended}")

    @staticmethod
    def serves(server):
        health = health_pb2_grpc.HealthStub(server.channel)
        return server.http_get("/readyz")[0] == 200 and all(
            health.Check(health_pb2.HealthCheckRequest(service=name)).status ==
            health_pb2.HealthCheckResponse.SERVING for name in ("", *wire.MODELS))

    def check_nothing_waits(self, server):
        for name in ("millrace_streams", "millrace_in_flight_requests",
                     "millrace_server_in_flight_requests", "millrace_queue_depth_rows",
                     "millrace_queue_bytes", "millrace_stream_held_bytes",
                     "millrace_busy_replicas"):
            try:
                eventually(lambda name=name: server.metric(name) == 0, seconds=10)
            except AssertionError:
                self.checker.violation(f"without a client, {name} is {server.metric(name):g}")

    def drain(self, server, admin, fleet, replicas):
        """In the middle of load and of faults, whose last ones end while it goes on."""
        faults = sum(self.driver.count.values())
        fleet.start(CLIENTS)
        with contextlib.suppress(AssertionError):  # Where clients take that long to start.
            eventually(lambda: fleet.tend() or server.metric("millrace_streams") > len(CLIENTS),
                       seconds=20)
        self.torment(server, fleet, LAST_SECONDS)
        faults = sum(self.driver.count.values()) - faults
        by, begin = self.random.choice((("SIGTERM", server.signal), ("the operator", admin.drain)))
        fleet.wanted = []
        begun = self.checker.draining_from = time.monotonic()
        begin()
        while server.process.poll() is None and time.monotonic() < begun + PATIENCE:
            self.driver.undo_due()
            fleet.tend()
            time.sleep(0.01)
        took = time.monotonic() - begun
        replicas.end()
        self.driver.undo_due(everything=True)
        code = server.wait()
        if error := self.driver.operator.end():
            raise error
        fleet.stop()
        self.drained = (f"by {by}, {faults} faults in the last {LAST_SECONDS} s before it; over "
                        f"after {took:.1f} s; {self.checker.told} streams were told how far they "
                        f"came, and had come so far; {self.checker.told_none} that none was read")
        if code != 0:
            self.checker.violation(f"a drain by {by} under load: exit code {code}",
                                   *server.log[-10:])
        if left := server.processes():
            self.checker.violation(f"processes are left: {left}")

    def holdings(self):
        before, after = self.before, self.after
        if after is None:
            return []
        return [f"server     descriptors {before.descriptors} to {after.descriptors}, "
                f"threads {before.threads} to {after.threads}, "
                f"mappings of batch buffers {before.mappings} to {after.mappings}, "
                f"memory {before.resident >> 20} to {after.resident >> 20} MiB",
                "memory     under load, in equal steps and before the drain: "
                f"{', '.join(str(size >> 20) for size in self.resident)} MiB"]

    def report(self):
        checker, driver = self.checker, self.driver

        def counts(counter):
            return ", ".join(f"{key if isinstance(key, str) else ' '.join(key)} {number}"
                             for key, number in sorted(counter.items()))
        memory = self.group.why_not or f"a cgroup of {(self.limit or 0) >> 20} MiB"
        healthy = "never" if self.healthy_after is None else f"{self.healthy_after:.1f} s"
        lines = [
            f"seed {self.seed}, {self.seconds / 60:g} minutes; memory: {memory}",
            f"requests   {sum(checker.requests.values())}: {counts(checker.requests)}",
            f"answers    {sum(checker.answers.values())}: {counts(checker.answers)}",
            f"sessions   {sum(checker.sessions.values())}: {counts(checker.sessions)}",
            f"faults     {sum(driver.count.values())}: {counts(driver.count)}",
            f"not done   operators' calls that faults hit: {counts(driver.failures) or 'none'}",
            f"lost {checker.lost}, out of order {checker.disordered}, wrong {checker.wrong}",
            *(f"recovery   of {len(seconds)} after {fault}: {spread(seconds)}"
              for fault, seconds in sorted(self.recoveries.items())),
            f"healthy    all of it {healthy} after the last fault; the driver undid what it did at "
            f"most {driver.latest:.1f} s late",
            f"cancels    {len(checker.cancels)} watched to the end, with "
            f"{sum(one.unanswered for one in checker.cancels)} requests unanswered and "
            f"{sum(one.under_way for one in checker.cancels)} answers under way; nothing in flight "
            f"after: {spread([one.forgotten_after for one in checker.cancels])}",
            f"drain      {self.drained}",
            *self.holdings(),
            "violations " + ("none" if checker.clean else f"{checker.violations_count}, the first "
                            f"{len(checker.violations)} of them with what was done before"),
            *(f"  {number}. {text}" for number, text in enumerate(checker.violations, 1))]
        return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--logs", type=pathlib.Path, metavar="DIR",
                        help="where the logs of a run with violations stay")
    options = parser.parse_args()
    if options.logs:
        options.logs.mkdir(parents=True, exist_ok=True)
    print(f"chaos from seed {options.seed} for {options.minutes:g} minutes", flush=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="millrace-chaos-", dir=options.logs))
    with contextlib.redirect_stderr(open(folder / "server.log", "w", buffering=1)):
        run = Run(folder, 60 * options.minutes, options.seed)
        run.run()
    print(run.report())
    if run.checker.clean:
        shutil.rmtree(folder)
    else:
        print(f"logs: {folder}")
    sys.exit(not run.checker.clean)


if __name__ == "__main__":
    main()
