# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The faults, dealt from one seed like cards from a deck: every kind comes once in each round."""

import collections
import contextlib
import heapq
import itertools
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import obedient
import watch
import wire
from server_process import stat_of
from tritonclient.grpc import service_pb2

DECK = {  # How often each fault comes in a round.
    "kill_replica": 6, "stop_replica": 3, "hang_replica": 2, "kill_template": 1,
    "stop_template": 1, "kill_client": 2, "freeze_client": 2, "swap": 2, "bad_swap": 1,
    "resize": 2, "restart": 1, "payload_fails": 2, "payload_crashes": 1, "payload_hangs": 1,
    "payload_fills": 1, "starve_descriptors": 1, "idle_connections": 1, "starve_cpu": 1}
HEALTHY = ("plain", "work", "narrow", "release", "wide", "lonely", "mlp_pt2")
CALL_SECONDS = 60  # For operators' calls; each ends long before.
FIRST_RUNS = 30  # Seconds that the first runs of a version may take: the server's --load-timeout.
FOUND_AFTER = 10  # Seconds above the limit until a replica that hangs has been replaced.
BETWEEN_ORDERS = 20  # Seconds between two requests that kill replicas of a model.
# Seconds that connections may still fail after descriptors were scarce: clients wait ever longer
# before they try again, and until then tell what came of the last time.
CONNECTIONS_AFTER = 20
BURN = "import sys, time\nend = float(sys.argv[1])\nwhile time.monotonic() < end: pass"


class Driver:
    """Confined to the thread that calls step(), but for the calls that Operator makes."""

    def __init__(self, server, admin, fleet, checker, replicas, repository, seed):
        self.server, self.admin, self.fleet, self.checker = server, admin, fleet, checker
        self.watch, self.repository = replicas, repository
        self.random = random.Random(seed)
        self.count = collections.Counter()  # Faults by kind.
        self.failures = collections.Counter()  # Operators' calls that weren't done, by kind.
        self.operator = Operator()
        self.version = 1
        self.latest = 0.0  # Seconds by which something was undone too late, at most.
        self._deck = []
        self._next_order = collections.Counter()  # By profile.
        self._later = []  # (when, number, what undoes a fault)
        self._numbers = itertools.count()
        self._taken = set()  # Processes that are stopped or killed.

    # ---- Dealing ----

    def step(self):
        """Injects the next fault."""
        if not self._deck:
            self._deck = [fault for fault, times in DECK.items() for _ in range(times)]
            self.random.shuffle(self._deck)
        fault = self._deck.pop()
        if getattr(self, fault)():
            self.count[fault] += 1

    def note(self, what):
        """Remembers what was done to whom, to be shown with a failure."""
        self.checker.faults.append((time.monotonic(), what))

    def undo_due(self, everything=False):
        """Undoes what is due; with `everything` also what isn't, but not what begins meanwhile."""
        due = []
        while self._later and (everything or self._later[0][0] <= time.monotonic()):
            due.append(heapq.heappop(self._later))
        for when, _, undo in due:
            self.latest = max(self.latest, time.monotonic() - when)
            undo()

    def _undo_after(self, seconds, undo):
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), undo))

    def _signal(self, pid, number):
        """Only to what is, or was, this server's."""
        stat = stat_of(pid)
        if stat and stat[3] == str(self.server.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # ---- Workers ----

    def _replica(self, wanted=lambda replica: True, models=HEALTHY):
        found = [(model, one.pid) for model, one in self.watch.replicas()
                 if model in models and one.ready and one.pid not in self._taken and wanted(one)]
        return self.random.choice(found) if found else None

    def kill_replica(self):
        if not (found := self._replica()):
            return False
        self._kill_replica("kill_replica", *found)
        return True

    def _kill_replica(self, what, model, pid):
        self._taken.add(pid)
        self.watch.expect_recovery(what, model, pid)
        self.note(f"SIGKILL to replica {pid} of '{model}'")
        self._signal(pid, signal.SIGKILL)

    def stop_replica(self):
        """For a moment, as a debugger would, or the kernel where memory is short."""
        if not (found := self._replica()):
            return False
        seconds = self.random.uniform(0.05, 1)
        self.note(f"SIGSTOP to replica {found[1]} of '{found[0]}' for {seconds:.2f} s")
        self._signal(found[1], signal.SIGSTOP)
        self._undo_after(seconds, lambda: self._signal(found[1], signal.SIGCONT))
        return True

    def hang_replica(self):
        """For good: when it has a batch, it must be found and replaced."""
        if not (found := self._replica()):
            return False
        model, pid = found
        self._taken.add(pid)
        limit = FIRST_RUNS if model == "release" else obedient.LIMIT_SECONDS
        replaced_after = limit + FOUND_AFTER
        what = "hang_replica" + (f" of release (limit {limit} s at first)" * (model == "release"))
        self.watch.expect_recovery(what, model, pid, replaced_after + watch.MOST_RECOVERY,
                                   hangs=True)
        self.note(f"SIGSTOP to replica {pid} of '{model}' for good")
        self._signal(pid, signal.SIGSTOP)
        stopped = time.monotonic()

        def look_again():
            one = next((one for _, one in self.watch.replicas() if one.pid == pid), None)
            if one is None:
                return
            if one.busy_ns > replaced_after * 1e9:
                self.checker.violation(f"process {pid} of model '{model}' has stood for "
                                       f"{time.monotonic() - stopped:.0f} s with a batch", one,
                                       f"its state: {stat_of(pid)}",
                                       *(found.string for found in
                                         self.server.logged(f"'{model}'")[-5:]))
                return
            if one.busy_ns or time.monotonic() < stopped + replaced_after:
                self._undo_after(0.5, look_again)
            else:  # No batch went to it.
                self.watch.forget(pid)
                self._signal(pid, signal.SIGCONT)
        self._undo_after(1, look_again)
        return True

    def _template(self):
        """One that has loaded its model, and the inode of the model's memory."""
        found = [(pid, watch.memory_of(pid)) for pid in watch.templates(self.server)
                 if pid not in self._taken and watch.is_loaded(pid)]
        return self.random.choice(found) if found else None

    def kill_template(self):
        if not (found := self._template()):
            return False
        pid, memory = found
        self._taken.add(pid)
        self.watch.expect_template("kill_template", memory, pid)
        self.note(f"SIGKILL to template {pid}")
        self._signal(pid, signal.SIGKILL)
        return True

    def stop_template(self):
        """For a moment, or for good; then it is missed, and must be found and replaced."""
        if not (found := self._template()):
            return False
        pid, memory = found
        for_good = self.random.random() < 0.5
        missed = self._replica(lambda one: watch.memory_of(one.pid) == memory, wire.MODELS)
        if for_good and missed is None:
            return False
        seconds = self.random.uniform(0.1, 4)
        self.note(f"SIGSTOP to template {pid} "
                  + ("for good" if for_good else f"for {seconds:.2f} s"))
        self._signal(pid, signal.SIGSTOP)
        if for_good:
            self._taken.add(pid)
            self.watch.expect_template("stop_template", memory, pid)
        else:
            self._undo_after(seconds, lambda: self._signal(pid, signal.SIGCONT))
        if missed and (for_good or self.random.random() < 0.5):
            self._kill_replica("kill_replica whose template is stopped", *missed)
        return True

    # ---- Clients ----

    def _client(self):
        found = self.fleet.running(("victim", "steady", "slow"))
        return self.random.choice(found) if found else None

    def kill_client(self):
        if not (member := self._client()):
            return False
        self.note(f"SIGKILL to client {member.number}")
        self.fleet.kill(member)
        return True

    def freeze_client(self):
        """Its connections stay open, and nobody reads them."""
        if not (member := self._client()):
            return False
        ending = self.fleet.wake if self.random.random() < 0.5 else self.fleet.kill
        seconds = self.random.uniform(0.5, 4)
        self.note(f"SIGSTOP to client {member.number} for {seconds:.2f} s, then {ending.__name__}")
        self.fleet.freeze(member)
        self._undo_after(seconds, lambda: ending(member))
        return True

    def payload_fails(self):
        return self._order("poison", "fail", lethal=False)

    def payload_crashes(self):
        return self._order("poison", "crash")

    def payload_hangs(self):
        return self._order("poison", "hang")

    def payload_fills(self):
        return self._order("hungry", "fill")

    def _order(self, profile, word, lethal=True):
        """What kills only seldom enough that replicas don't count as dying again and again, which
        is answered by pauses of up to half a minute between their starts."""
        if lethal and time.monotonic() < self._next_order[profile]:
            return False
        found = [member for member in self.fleet.running((profile,)) if not member.stopping]
        for member in found[:1]:
            self.note(f"a request to '{profile}' orders: {word}")
            self.fleet.order(member, word)
            if lethal:
                self._next_order[profile] = time.monotonic() + BETWEEN_ORDERS
        return bool(found)

    # ---- Operators ----

    def swap(self):
        return self.operator.begin(lambda: self._load(broken=False))

    def bad_swap(self):
        return self.operator.begin(lambda: self._load(broken=True))

    def _load(self, broken):
        """Puts a new version of `release` into the repository and has it loaded."""
        self.version += 1
        version, folder = self.version, self.repository / "release"
        aside = self.repository.parent / "aside" / str(version)
        if broken:
            aside.mkdir(parents=True)
            (aside / "model.pt").write_bytes(b"no model")
        else:
            obedient.save(version, aside / "model.pt")
        aside.rename(folder / str(version))
        self.checker.versions.begin(version, time.monotonic())
        self.note(f"load of version {version} of 'release'" + (", which is no model" * broken))
        loaded, begin = None, time.monotonic()
        try:
            self.server.operator.RepositoryModelLoad(
                service_pb2.RepositoryModelLoadRequest(model_name="release"), timeout=CALL_SECONDS)
            loaded = True
        except grpc.RpcError as error:
            # The server's own limit, and an answer, unless the call's time is over.
            if (not self._not_done("load", error, begin)
                    and time.monotonic() < self.checker.draining_from):
                loaded = False
        self.checker.versions.end(version, time.monotonic(), loaded)
        if broken and loaded:
            self.checker.violation(f"version {version} of 'release' is no model and was loaded")
        for old in folder.iterdir():
            if old.name.isdecimal() and (
                    int(old.name) < version if loaded else int(old.name) == version):
                shutil.rmtree(old)

    def resize(self):
        replicas = self.random.choice((1, 2))
        return self._call(f"resize of 'work' to {replicas}", self.admin.resize, model="work",
                          replicas=replicas)

    def restart(self):
        model = self.random.choice(HEALTHY)
        return self._call(f"restart of '{model}'", self.admin.restart, model=model)

    def _call(self, what, method, **fields):
        def call():
            self.note(what)
            begin = time.monotonic()
            try:
                method(timeout=CALL_SECONDS, **fields)
            except grpc.RpcError as error:
                self._not_done(what, error, begin)
        return self.operator.begin(call)

    def _not_done(self, what, error, begin):
        """Faults hit operators' calls, too; but an answer must come. Whether none came in time. (A
        load that takes too long for the server is answered DEADLINE_EXCEEDED as well.)"""
        self.failures[f"{what.split()[0]} {error.code().name}"] += 1
        print(f"{what}: {error.code().name}: {error.details()}")
        unanswered = (error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                      and time.monotonic() - begin > CALL_SECONDS - 1)
        if unanswered:
            self.checker.violation(f"{what} took more than {CALL_SECONDS} s")
        return unanswered

    # ---- The machine ----

    def starve_descriptors(self):
        """The server may open no more than it has, for a moment."""
        if self._is_starved:
            return False
        self._is_starved = True
        limited = contextlib.ExitStack()
        left, seconds = self.random.randint(0, 4), self.random.uniform(0.3, 2)
        self.note(f"{left} descriptors left for {seconds:.2f} s")
        limited.enter_context(self.server.descriptors_left(left))
        window = [time.monotonic(), float("inf")]
        self.checker.connections_fail.append(window)

        def end():  # Late, where the driver itself got no core.
            limited.close()
            window[1] = time.monotonic() + CONNECTIONS_AFTER
            self._is_starved = False
        self._undo_after(seconds, end)
        return True

    _is_starved = False

    def idle_connections(self):
        """Peers that connect and say nothing, or half of a word."""
        host, port = self.server.address.rsplit(":", 1)
        opened = []
        for number in range(self.random.randint(20, 200)):
            try:
                opened.append(socket.create_connection((host, int(port)), timeout=1))
                opened[-1].sendall((b"", b"PRI * HTTP/2.0\r\n")[number % 2])
            except OSError:
                break

        self.note(f"{len(opened)} idle connections")

        def close():
            for each in opened:
                each.close()
        self._undo_after(self.random.uniform(0.5, 5), close)
        return True

    def starve_cpu(self):
        """Somebody else takes the cores, for two seconds at most."""
        until = time.monotonic() + self.random.uniform(0.5, 2)
        self.note("two processes that take the cores")
        busy = [subprocess.Popen([sys.executable, "-S", "-c", BURN, str(until)]) for _ in range(2)]

        def end():
            for each in busy:
                each.kill()
                each.wait()
        self._undo_after(2.5, end)
        return True


class Operator:
    """A thread that makes one slow call at a time, in turn."""

    MOST_WAITING = 3

    def __init__(self):
        self._calls = queue.SimpleQueue()
        self._begun = self._done = 0
        self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, call):
        """Has the call made in its turn, or not at all where several wait."""
        if self._calls.qsize() >= self.MOST_WAITING:
            return False
        self._begun += 1
        self._calls.put(call)
        return True

    def is_idle(self):
        return self._begun == self._done

    def end(self):
        """Waits for those that were begun; returns what was raised."""
        self._calls.put(None)
        self._thread.join(CALL_SECONDS * (self.MOST_WAITING + 1))
        return self.error if not self._thread.is_alive() else TimeoutError("a call never ended")

    def _run(self):
        while call := self._calls.get():
            try:
                call()
            except BaseException as error:  # Reported by end().
                self.error = error
            self._done += 1
