# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What processes take of the machine, as the kernel tells it."""

import contextlib
import os
import pathlib
import re
import threading
from typing import List, Sequence

from programs import workers_of


def cpu_seconds(pids: Sequence[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def private_mib(pid: int) -> float:
    """Memory that the process has for itself."""
    return smaps_mib(pid, "Private_Clean", "Private_Dirty")


def fair_mib(pid: int) -> float:
    """All of its memory; of what several processes share its part."""
    return smaps_mib(pid, "Pss")


def smaps_mib(pid: int, *fields: str) -> float:
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(re.search(rf"^{name}: +(\d+) kB", text, re.MULTILINE)[1])
               for name in fields) / 1024


def replicas_of(server: int) -> List[int]:
    """The processes of a server's replicas."""
    replicas = []
    for pid in workers_of(server):
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{pid}/comm").read_text() == "replica\n":
                replicas.append(pid)
    return replicas


class PeakMemory:
    """The most memory that a process had while the block ran, as far as it was looked at."""

    def __init__(self, pid: int):
        self.mib = 0.0
        self._pid = pid
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> "PeakMemory":
        self._watcher.start()
        return self

    def __exit__(self, *unused) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            with contextlib.suppress(OSError):  # It ends.
                self.mib = max(self.mib, fair_mib(self._pid))
