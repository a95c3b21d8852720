#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Measures what replicas cost that are forked from a template that has loaded the model.

    ./dev bench replicas

Memory that a process has for itself (smaps_rollup: Private_Clean and Private_Dirty), of each
replica, and of a process that loads libtorch and the same model by itself. And the time from the
death of the only replica to the answer of a request that waits for its successor, less the time that
the request takes otherwise.
"""

import argparse
import os
import pathlib
import queue
import signal
import statistics
import time

import numpy
import tritonclient.grpc as grpcclient
from processes import private_mib, replicas_of
from programs import REPOSITORY, RESNET18, Programs, Variant, workers_of

REPLICAS = 4
PATIENCE = 30  # Seconds for whatever should take milliseconds.


class Client:
    def __init__(self, server):
        self._client = grpcclient.InferenceServerClient(server.address)
        self._input = grpcclient.InferInput("INPUT__0", [1, *RESNET18.dims], "FP32")
        self._input.set_data_from_numpy(numpy.zeros((1, *RESNET18.dims), numpy.float32))

    def infer(self):
        """Milliseconds to an answer."""
        begin = time.monotonic()
        self._client.infer("model", [self._input], client_timeout=PATIENCE)
        return 1e3 * (time.monotonic() - begin)

    def infer_at_once(self, count):
        answers = queue.SimpleQueue()
        for _ in range(count):
            self._client.async_infer("model", [self._input], lambda result, error:
                                     answers.put(error), client_timeout=PATIENCE)
        for _ in range(count):
            if error := answers.get(timeout=2 * PATIENCE):
                raise error


def measure_memory(programs):
    with programs.server({"model": Variant(RESNET18, 4, REPLICAS)}) as server:
        client = Client(server)
        for _ in range(8):
            client.infer_at_once(8 * REPLICAS)  # So that each of them has run batches of all sizes.
        replicas = replicas_of(server.pids[0])
        assert len(replicas) == REPLICAS
        each = [private_mib(pid) for pid in replicas]
        [template] = set(workers_of(server.pids[0])) - set(replicas)
        shared = private_mib(template)
    with programs.loop(RESNET18) as loop:
        loop.rows_per_second(4, 0, 1, 1)  # In the process that has loaded it.
        alone = private_mib(loop.pid)
    return each, shared, alone


def measure_deaths(programs, deaths):
    """Milliseconds from a death to an answer, and that a request takes otherwise."""
    with programs.server({"model": Variant(RESNET18, 4, 1)}) as server:
        client = Client(server)
        for _ in range(20):
            client.infer()
        usual, after_death = [], []
        for _ in range(deaths):
            usual.append(client.infer())
            [pid] = replicas_of(server.pids[0])
            os.kill(pid, signal.SIGKILL)
            after_death.append(client.infer())
            time.sleep(0.15)  # Longer than a replica that dies at once is held back.
    return after_death, usual


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deaths", type=int, default=50)
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build")
    parser.add_argument("--models", type=pathlib.Path, default=REPOSITORY / "build/models/bench")
    options = parser.parse_args()
    programs = Programs(options.build, options.models, sorted(os.sched_getaffinity(0))[:2])
    programs.check()
    each, template, alone = measure_memory(programs)
    replica = statistics.median(each)
    print(f"memory of its own   {replica:.0f} MiB a replica of {REPLICAS} (template "
          f"{template:.0f} MiB), {alone:.0f} MiB a process that loads the model by itself: "
          f"{replica / alone:.2f}")
    after_death, usual = measure_deaths(programs, options.deaths)
    answer = statistics.median(usual)
    rest = [time - answer for time in after_death]
    print(f"from death to the first answer   {statistics.median(after_death):.1f} ms (p90 "
          f"{sorted(after_death)[int(0.9 * len(after_death))]:.1f} ms), {answer:.1f} ms of which a "
          f"request takes anyway: {statistics.median(rest):.1f} ms")


if __name__ == "__main__":
    main()
