# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Watches the server from outside: its replicas, how soon they are back, and what it holds."""

import contextlib
import os
import pathlib
import threading
import time
from dataclasses import dataclass, fields

import grpc
from server_process import comm_of, eventually, stat_of

PERIOD = 0.02
MOST_RECOVERY = 60  # Seconds: the pause between replicas that keep dying grows up to 30.


@dataclass(frozen=True)
class Holdings:
    """What the server has, and how much more of it is no leak."""

    descriptors: int
    threads: int
    mappings: int  # Of shared memory.
    resident: int
    MORE = {"descriptors": 8, "threads": 4, "mappings": 0, "resident": 128 << 20}

    @staticmethod
    def of(pid):
        folder = pathlib.Path(f"/proc/{pid}")
        pages = int((folder / "statm").read_text().split()[1])
        return Holdings(len(os.listdir(folder / "fd")), len(os.listdir(folder / "task")),
                        (folder / "maps").read_text().count("/memfd:"),
                        pages * os.sysconf("SC_PAGE_SIZE"))

    def leaks_since(self, before):
        """What has grown too much, in words."""
        return [f"{one.name} grew from {getattr(before, one.name)} to {getattr(self, one.name)}"
                for one in fields(self)
                if getattr(self, one.name) > getattr(before, one.name) + self.MORE[one.name]]


def children(pid):
    """The processes whose parent this is, with their states, also those that have ended."""
    found = {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdecimal() and (stat := stat_of(folder.name)) and stat[1] == str(pid):
            found[int(folder.name)] = stat[0]
    return found


def templates(server):
    return [pid for pid in children(server.pid) if comm_of(pid) == "template"]


class Watch:
    """Asks again and again how the replicas are, on a thread of its own, until ended."""

    def __init__(self, admin):
        self._admin = admin
        self._lock = threading.Lock()
        self._open = []  # (when, what, model, pid)
        self._models = {}
        self._ended = threading.Event()
        self.recoveries = []  # Seconds from a replica's end until all of its model are ready.
        self.late = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self):
        self._ended.set()
        self._thread.join()

    def replicas(self):
        """(model, replica) as they were seen last."""
        return [(name, replica) for name, replicas in self._models.items() for replica in replicas]

    def expect_recovery(self, what, model, pid):
        """From now on, until `pid` has gone and all replicas of the model are ready."""
        with self._lock:
            self._open.append((time.monotonic(), what, model, pid))

    def all_ready(self):
        with self._lock:
            return not self._open and self._models and all(
                replica.ready for _, replica in self.replicas())

    def _run(self):
        while not self._ended.wait(PERIOD):
            begin = time.monotonic()
            with contextlib.suppress(grpc.RpcError):  # Asked again.
                listed = self._admin.list_replicas(timeout=5).models
                self._models = {entry.model: list(entry.replicas) for entry in listed}
                self._note(begin)

    def _note(self, begin):
        now = time.monotonic()
        with self._lock:
            still = []
            for fault in self._open:
                when, _, model, pid = fault
                replicas = self._models.get(model, ())
                if when < begin and replicas and all(
                        one.ready and one.pid != pid for one in replicas):
                    self.recoveries.append(now - when)
                elif now - when > MOST_RECOVERY:
                    self.late.append(f"{fault[1]} of process {pid} of model '{model}': not all "
                                     f"replicas were ready after {now - when:.0f} s")
                else:
                    still.append(fault)
            self._open = still


def wait_until_steady(pid, seconds=20):
    """Waits until the descriptors stay as many as they are for a second."""
    counts = []

    def steady():
        counts.append(Holdings.of(pid).descriptors)
        time.sleep(0.1)
        return len(counts) > 10 and len(set(counts[-10:])) == 1
    eventually(steady, "the server's descriptors don't settle", seconds)
    return Holdings.of(pid)
