# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a Millrace server as a child process, and looks at it from outside."""

import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from typing import List, Tuple

PATIENCE = 120  # Seconds that anything here may take before it counts as failed.
LOG_PREFIX = re.compile(r"^\S+ [A-Z] \S+\[\d+\] ")  # Time, level, program and process.


class ServerError(Exception):
    """The server didn't start, or didn't do what was expected in time."""


class DemoServer:
    """A server on free ports of 127.0.0.1. Use it in a `with` statement, which stops it."""

    def __init__(self, program: pathlib.Path, models: pathlib.Path, log: pathlib.Path):
        self.log = log
        self._program, self._models = program, models

    def __enter__(self) -> "DemoServer":
        command = [self._program, "--model-repository", self._models, "--drain-delay", "0s",
                   "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        with open(self.log, "wb") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo alone, which then stops
            # the server in good order.
            self._process = subprocess.Popen(command, stdout=log, stderr=log,
                                             stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            self.url = self._wait_for("its gRPC address", lambda: self._address("gRPC"))
            self._http = self._wait_for("its HTTP address", lambda: self._address("HTTP"))
            self._wait_for("being ready", lambda: self._get("/readyz") is not None)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *unused) -> None:
        self.stop()

    def stop(self) -> int:
        """Stops the server, if it runs, and returns its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def plan(self) -> List[str]:
        """Returns the table of which replica runs where, as the server logged it at start."""
        lines = self._log_lines()
        start = next(i for i, line in enumerate(lines) if re.match(r"model +version +engine", line))
        columns = len(lines[start].split())
        end = start
        while end < len(lines) and len(re.split(r"  +", lines[end].strip())) == columns:
            end += 1
        return lines[start:end]

    def replicas(self) -> List[int]:
        """Returns the process ids of the living replicas: children of the server whose main
        thread's name is `replica`. Those that compute right now come first."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                # "31578 (replica) R 31570 …": id, name, state, parent.
                name, rest = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue  # It has ended meanwhile.
            state, parent = rest.split()[:2]
            if name == "replica" and int(parent) == self._process.pid and state not in "ZX":
                found.append((state != "R", int(entry.name)))
        return [pid for _, pid in sorted(found)]

    def kill_replica(self) -> int:
        """Kills a replica, one that computes if there is any, as the kernel or a crash would, and
        returns its process id."""
        pid = self._wait_for("a replica", self.replicas)[0]
        os.kill(pid, signal.SIGKILL)
        return pid

    def metric(self, name: str, model: str) -> float:
        """Returns what /metrics says about a model, summed over its versions."""
        return sum(value for _, value in self._samples(name, model))

    def median(self, histogram: str, model: str) -> float:
        """Returns the median that a histogram of /metrics tells: between the bounds of a bucket it
        takes values to be spread evenly, as Prometheus does."""
        buckets = [(float(re.search(r'le="([^"]+)"', labels)[1]), count)
                   for labels, count in self._samples(f"{histogram}_bucket", model)]
        half, below, lower = buckets[-1][1] / 2, 0.0, 0.0
        for bound, count in buckets:
            if count >= half > below:
                return lower + (bound - lower) * (half - below) / (count - below)
            below, lower = count, bound
        return 0.0

    def wait_until_replaced(self, model: str, restarts: int, ready: int) -> None:
        """Waits until `restarts` replicas of the model were replaced, and `ready` are ready."""
        self._wait_for(
            f"{restarts} restarted and {ready} ready replicas",
            lambda: self.metric("millrace_replica_restarts_total", model) >= restarts
            and self.metric("millrace_ready_replicas", model) == ready)

    def _samples(self, name: str, model: str) -> List[Tuple[str, float]]:
        """Returns the labels and values of a metric of the model."""
        text = self._get("/metrics")
        if text is None:
            raise ServerError(f"the server doesn't answer GET /metrics: see {self.log}")
        found = re.findall(rf'^{name}{{(model="{model}",[^}}]*)}} (\S+)$', text, re.MULTILINE)
        return [(labels, float(value)) for labels, value in found]

    def _log_lines(self) -> List[str]:
        return [LOG_PREFIX.sub("", line) for line in self.log.read_text().splitlines()]

    def _address(self, protocol: str) -> str:
        found = re.search(rf"\b{protocol} listens on (127\.0\.0\.1:\d+)$", self.log.read_text(),
                          re.MULTILINE)
        return found[1] if found else ""

    def _get(self, path: str):
        """Returns the page, or None where the server doesn't answer 200 to it."""
        try:
            with urllib.request.urlopen(f"http://{self._http}{path}", timeout=10) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            return None

    def _wait_for(self, what: str, check):
        """Returns what `check` returns as soon as that is true; fails when the server ends."""
        deadline = time.monotonic() + PATIENCE
        while not (result := check()):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                why = f"ended with code {self._process.returncode}" if ended else "didn't get there"
                tail = "\n".join(self._log_lines()[-5:])
                raise ServerError(f"waiting for {what}: the server {why}. {self.log} ends with\n"
                                  f"{tail}")
            time.sleep(0.05)
        return result
