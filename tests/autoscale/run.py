# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Watches autoscaling work: real servers, a real Prometheus, the HPA's formula. See --help."""

import argparse
import asyncio
import contextlib
import json
import math
import pathlib
import re
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / name) for name in ("models", "integration", "benchmarks")]

from hpa import Autoscaler, Behaviour, proposed, proposed_by_pods  # noqa: E402
from load import Load  # noqa: E402
from prometheus import Prometheus  # noqa: E402
from servers import CAPACITY, Fleet, knows_connection_age  # noqa: E402
from tables import Table, machine  # noqa: E402

FACTOR = 10  # Kubernetes' times and Prometheus's, divided by this.
LEAST, MOST = 1, 6
STREAMS = 8
SLO = 0.5  # Seconds.
AGE = 8  # Seconds of a connection.
# (seconds, requests per second): straight lines between them. A server can do 20.
PROFILE = [(0, 6), (10, 6), (30, 40), (40, 40), (41, 70), (65, 70), (66, 40), (72, 40), (78, 6),
           (140, 6)]
TOTAL = PROFILE[-1][0]
GRACE = 20.0  # Seconds that streams have after it for what is unanswered.
BEGIN, END = "<!-- autoscale begin -->", "<!-- autoscale end -->"


def rate(seconds):
    for (t0, r0), (t1, r1) in zip(PROFILE, PROFILE[1:]):
        if seconds <= t1:
            return r0 + (r1 - r0) * (max(seconds, t0) - t0) / (t1 - t0)
    return PROFILE[-1][1]


def need(seconds):
    """The servers that the load takes, at all of their capacity."""
    return max(LEAST, min(MOST, math.ceil(rate(seconds) / CAPACITY)))


class Signal:
    """A query, and what it shall be: a value of each pod, or one of all together."""

    def __init__(self, name, query, target, by_pods):
        self.name, self.query, self.target, self.by_pods = name, query, target, by_pods

    def recommend(self, prometheus, current, ready):
        """The replicas for this signal, of which `ready` are the addresses of those that serve;
        None without a value."""
        values = prometheus.query(self.query)
        if not self.by_pods:
            return proposed(current, *values.values(), self.target) if values else None
        of_pods = [value for address, value in values.items() if address in ready]
        return proposed_by_pods(current, of_pods, self.target) if of_pods else None


MINUTE = f"{60000 // FACTOR}ms"
SIGNALS = [
    Signal("desired ratio", "instance:millrace_desired_replicas:sum", 0.7, True),
    Signal("saturation", "model:millrace_saturation:ratio_rate1m", 0.7, False),
    Signal("queue wait", "model:millrace_queue_wait_seconds:p99_rate5m", 0.1, False),
    # Of a request of a quarter of a core.
    Signal("CPU", f"(rate(process_cpu_seconds_total[{MINUTE}]) + on(instance) "
           f"sum by (instance) (rate(millrace_worker_cpu_seconds_total[{MINUTE}]))) / 0.25",
           0.8, True),
]


class Run:
    """One signal under the load."""

    def __init__(self, signal):
        self.signal = signal
        self.samples = []  # (seconds, wanted, ready), five each second.
        self.decisions = []  # Replicas, where they changed.
        self.failures = []
        self.account = None

    def go(self, folder, connection_age):
        prometheus = Prometheus(folder / "prometheus", FACTOR)
        fleet = None
        try:
            fleet = Fleet(folder, prometheus.set_targets, connection_age)
            fleet.scale(LEAST)
            fleet.wait_ready(LEAST)
            time.sleep(30 / FACTOR)  # Two scrapes.
            load = Load(fleet, rate, STREAMS, seed=1)
            over = threading.Event()
            controlling = threading.Thread(target=self._control, args=(prometheus, fleet, over))
            controlling.start()
            try:
                asyncio.run(load.run(TOTAL, GRACE))
            finally:
                over.set()
                controlling.join()
            self.account = load.account
        finally:
            if fleet:
                fleet.stop()
                self.failures += fleet.failures
            prometheus.stop()
        return self

    def _control(self, prometheus, fleet, over):
        scaler = Autoscaler(LEAST, MOST, Behaviour().faster(FACTOR))
        begin, wanted, sync = time.monotonic(), LEAST, 0.0
        self.decisions.append(wanted)
        while not over.wait(0.2):
            now = time.monotonic() - begin
            if now <= TOTAL:
                self.samples.append((now, wanted, len(fleet.ready)))
            if now < sync:
                continue
            sync = now + 15 / FACTOR
            try:
                ready = {server.http for server in list(fleet.ready)}
                recommended = self.signal.recommend(prometheus, wanted, ready)
            except OSError as error:
                self.failures.append(f"Prometheus did not answer: {error}")
                continue
            decided = scaler.decide(now, wanted, recommended)
            if decided != wanted:
                print(f"  {now:5.1f} s  {wanted} -> {decided}", flush=True)
                wanted = decided
                self.decisions.append(wanted)
                fleet.scale(wanted)

    # ---- What came of it ----

    @property
    def flaps(self):
        """Turns beyond the one that the load has, from up to down."""
        ups = [b > a for a, b in zip(self.decisions, self.decisions[1:])]
        return max(0, sum(a != b for a, b in zip(ups, ups[1:])) - (1 if ups and ups[0] else 0))

    @property
    def react(self):
        """Seconds from when the load takes a second server until it is there; None: never."""
        since = next(t for t, *_ in self.samples if need(t) > LEAST)
        return next((max(0.0, t - since) for t, _, ready in self.samples if ready > LEAST), None)

    def area(self, of):
        total = 0.0
        for (t0, *_), (t1, _, ready) in zip(self.samples, self.samples[1:]):
            total += max(0.0, of(ready, need(t1))) * (t1 - t0)
        return total

    @property
    def follows(self):
        """Within the burst as many as it takes, and back to the least in the end."""
        return (max(ready for t, _, ready in self.samples if 30 <= t <= 66) >= need(50)
                and self.samples[-1][2] == LEAST)

    @property
    def late(self):
        """The part of all requests that weren't answered within the SLO."""
        slow = sum(took > SLO for _, took in self.account.latencies)
        bad = slow + self.account.refused + self.account.unanswered + self.account.lost.total()
        return bad / self.account.sent

    def cells(self):
        react = "never" if self.react is None else f"{self.react:.1f} s"
        return [self.signal.name, str(max(ready for *_, ready in self.samples)), react,
                f"{self.area(lambda ready, need: need - ready):.0f}",
                f"{self.area(lambda ready, need: ready - need):.0f}", f"{100 * self.late:.1f} %",
                str(self.account.lost.total()), str(self.flaps), str(self.account.moves)]

    def faults(self):
        name, found = self.signal.name, list(self.failures)
        found += [f"lost {count} × {what}" for what, count in self.account.lost.items()]
        if self.flaps:
            found.append(f"flapped: {self.decisions}")
        if self.signal.name == "desired ratio":
            if not self.follows:
                found.append("the servers did not follow the load")
            if self.account.unanswered:
                found.append(f"{self.account.unanswered} requests of streams had no answer")
        if not self.account.latencies:
            found.append("no request was answered")
        return [f"{name}: {fault}" for fault in found]


def draw(runs, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, rows = pyplot.subplots(len(runs), 1, figsize=(8, 1.9 * len(runs)), sharex=True,
                                   squeeze=False)
    for run, (axes,) in zip(runs, rows):
        times = [t for t, *_ in run.samples]
        axes.fill_between(times, [rate(t) / CAPACITY for t in times], color="#dddddd",
                          label="load / a server's capacity")
        axes.step(times, [wanted for _, wanted, _ in run.samples], color="#1f77b4", lw=1,
                  where="post", label="wanted")
        axes.step(times, [ready for *_, ready in run.samples], color="#d62728", where="post",
                  label="ready")
        axes.set_ylim(0, MOST + 0.5)
        axes.set_ylabel("servers")
        axes.set_title(run.signal.name, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    rows[0][0].legend(fontsize=8, frameon=False, loc="upper right")
    rows[-1][0].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(prog="./dev autoscale", description=(
        "Real servers, scraped by a real Prometheus, are started and stopped by the HPA's formula "
        "on each signal in turn, while load rises, bursts and falls. Lost requests, flapping, and "
        "servers that don't follow (the desired ratio) fail it."))
    parser.add_argument("--quick", action="store_true", help="the desired ratio only: 3 minutes")
    parser.add_argument("--signal", choices=[signal.name for signal in SIGNALS])
    parser.add_argument("--docs", action="store_true",
                        help="write table and picture into docs/autoscaling.md and docs/images")
    parser.add_argument("--plot", type=pathlib.Path, help="write the picture there")
    parser.add_argument("--json", type=pathlib.Path, help="write all samples there")
    options = parser.parse_args()
    signals = [signal for signal in SIGNALS if signal.name == options.signal]
    signals = signals or SIGNALS[:1 if options.quick else None]
    age = AGE if knows_connection_age() else None
    print(f"Times of Kubernetes and Prometheus divided by {FACTOR}. " + (
        f"Connections have an age of {age} s." if age else
        "These servers have no --max-connection-age: streams stay where they are."), flush=True)
    runs, faults = [], []
    for signal in signals:
        print(f"\n{signal.name}, target {signal.target}", flush=True)
        with tempfile.TemporaryDirectory(prefix="millrace-autoscale-") as folder:
            log = pathlib.Path(folder) / "servers.log"
            with log.open("w") as quiet, contextlib.redirect_stderr(quiet):
                run = Run(signal).go(pathlib.Path(folder), age)
        runs.append(run)
        faults += run.faults()
        print("  " + " | ".join(run.cells()), *run.faults(), sep="\n  ", flush=True)
    table = Table("", ["signal", "most servers", "reacts after", "short (server s)",
                       "beyond need (server s)", f"slower than {SLO} s", "lost", "flaps",
                       "streams moved"], [run.cells() for run in runs])
    print(f"\n{table}\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps({run.signal.name: run.samples for run in runs}))
    if options.plot or options.docs:
        draw(runs, options.plot or ROOT / "docs/images/autoscaling.png")
    if options.docs:
        page = ROOT / "docs/autoscaling.md"
        text = (f"{BEGIN}\n{table}\n\nMeasured on {machine(range(2))}.\n\n![servers wanted and ready "
                f"under the load, by signal](images/autoscaling.png)\n{END}")
        page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: text, page.read_text(), flags=re.S))
    print("\n".join(f"FAILED: {fault}" for fault in faults) or "passed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
