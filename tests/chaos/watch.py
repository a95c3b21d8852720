# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Watches the server from outside: its replicas, how soon they are back, and what it holds."""

import collections
import contextlib
import os
import pathlib
import re
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


def memory_of(pid):
    """The inode of the batch buffers that a worker maps: all workers of a model version share
    them. None where it maps none."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
        found = re.search(r" (\d+) +/memfd:millrace-model", maps)
        return found and int(found[1])
    return None


def is_loaded(pid):
    """Whether a template has loaded its model: then it has closed the files that it did so from."""
    links = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return bool(links) and memory_of(pid) is not None and not any(
        link.startswith("/memfd:") for link in links)


@dataclass
class Fault:
    """Of a replica of a model, or of the template that belongs to some memory."""

    when: float  # Of a replica that hangs: since it has had a batch.
    what: str
    pid: int
    seconds: float  # That the recovery may take.
    model: str = ""
    memory: int | None = None
    hangs: bool = False


class Watch:
    """Asks again and again how the replicas are, on a thread of its own, until ended."""

    def __init__(self, admin, server):
        self._admin, self._server = admin, server
        self._lock = threading.Lock()
        self._open = []
        self._models = {}
        self._ended = threading.Event()
        # Seconds from a fault until it is healed, by the fault: all replicas of the model are
        # ready, without the old one; or another template has loaded the model.
        self.recoveries = collections.defaultdict(list)
        self.late = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self):
        self._ended.set()
        self._thread.join()

    def replicas(self):
        """(model, replica) as they were seen last."""
        return [(name, replica) for name, replicas in self._models.items() for replica in replicas]

    def expect_recovery(self, what, model, pid, seconds=MOST_RECOVERY, hangs=False):
        """From now on, until `pid` has gone and all replicas of the model are ready. One that
        `hangs` is found only when it has a batch, so its time counts from then."""
        with self._lock:
            self._open.append(Fault(time.monotonic(), what, pid, seconds, model, hangs=hangs))

    def expect_template(self, what, memory, pid):
        """From now on, until a template other than `pid` has loaded the model of that memory."""
        with self._lock:
            self._open.append(Fault(time.monotonic(), what, pid, MOST_RECOVERY, memory=memory))

    def forget(self, pid):
        """Expects no recovery any more."""
        with self._lock:
            self._open = [fault for fault in self._open if fault.pid != pid]

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
        loaded, maps = {}, ""  # Looked at only where it matters.
        with self._lock:
            of_templates = [fault for fault in self._open if fault.memory]
        if of_templates:
            loaded = {memory_of(pid): pid for pid in templates(self._server) if is_loaded(pid)}
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                maps = pathlib.Path(f"/proc/{self._server.pid}/maps").read_text()
        now = time.monotonic()
        with self._lock:
            still = []
            for fault in self._open:
                if fault.memory is None:
                    replicas = self._models.get(fault.model, ())
                    hanging = [one.busy_ns for one in replicas if one.pid == fault.pid]
                    if fault.hangs and hanging:
                        fault.when = max(fault.when, begin - hanging[0] / 1e9)
                    healed = bool(replicas) and all(
                        one.ready and one.pid != fault.pid for one in replicas)
                else:
                    healed = loaded.get(fault.memory, fault.pid) != fault.pid
                    if fault.when < begin and f" {fault.memory} " not in maps:
                        continue  # The version has been replaced.
                if fault.when < begin and healed:
                    self.recoveries[fault.what].append(now - fault.when)
                elif now - fault.when > fault.seconds:
                    self.late.append(f"{fault}: not healed after {now - fault.when:.0f} s")
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
