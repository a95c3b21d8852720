# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The client processes: started, replaced when they have ended, and their logs given to the
checker."""

import contextlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

PROGRAM = pathlib.Path(__file__).with_name("clients.py")
LIFE = 20  # Seconds after which a client is replaced; so logs stay short.
PATIENCE = 150  # Seconds that a client may take to finish what it has open.
ALONE = ("canceller",)  # Profiles whose next client comes when the last one has ended.


@dataclass
class Member:
    profile: str
    number: int
    process: subprocess.Popen
    log: pathlib.Path
    born: float
    killed: bool = False
    stopping: float | None = None
    frozen: list = field(default_factory=list)  # [from, until], of which the last may go on.


class Fleet:
    """Confined to one thread."""

    def __init__(self, folder, checker, server, table, seed):
        self.folder, self.checker = folder, checker
        self._arguments = server.address, server.http, table, seed
        self._numbers = itertools.count(1)
        self.members = []
        self.wanted = []

    def start(self, profiles):
        self.wanted = list(profiles)
        self.tend()

    def tend(self):
        """Takes in who has ended, tells the old to end, and starts who is missing."""
        now = time.monotonic()
        for member in list(self.members):
            if member.process.poll() is not None:
                self._take_in(member)
            elif member.stopping and now > member.stopping + PATIENCE:
                self.checker.violation(f"client {member.number} ({member.profile}) doesn't end")
                self.kill(member)
            elif not member.stopping and now > member.born + LIFE:
                self._tell_to_end(member)
        missing = list(self.wanted)
        for member in self.members:
            if member.profile in missing and (not member.stopping or member.profile in ALONE):
                missing.remove(member.profile)
        for profile in missing:
            self._start(profile)

    def stop(self):
        """Has all of them finish, and waits for it."""
        self.wanted = []
        for member in self.members:
            self.wake(member)
            self._tell_to_end(member)
        while self.members:
            self.tend()
            time.sleep(0.02)

    def end_at_once(self):
        for member in self.members:
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()
            member.process.wait()

    def running(self, profiles):
        return [member for member in self.members if member.profile in profiles
                and not member.killed and member.process.poll() is None]

    @staticmethod
    def kill(member):
        member.killed = True
        member.process.kill()

    @staticmethod
    def order(member, word):
        """Has one of its next requests order this."""
        with contextlib.suppress(BrokenPipeError):
            member.process.stdin.write(f"{word}\n".encode())
            member.process.stdin.flush()

    @staticmethod
    def freeze(member):
        if not member.frozen or member.frozen[-1][1] != float("inf"):
            member.frozen.append([time.monotonic(), float("inf")])
        member.process.send_signal(signal.SIGSTOP)

    @staticmethod
    def wake(member):
        if member.process.poll() is None:
            member.process.send_signal(signal.SIGCONT)
        if member.frozen:
            member.frozen[-1][1] = min(member.frozen[-1][1], time.monotonic())

    def _start(self, profile):
        number = next(self._numbers)
        log = self.folder / f"client-{number}-{profile}.log"
        log.touch()
        address, http, table, seed = self._arguments
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, str(PROGRAM), address, http,
             str(log), str(table), profile, str(number), str(seed)],
            stdin=subprocess.PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        self.members.append(Member(profile, number, process, log, time.monotonic()))

    @staticmethod
    def _tell_to_end(member):
        if not member.stopping:
            member.stopping = time.monotonic()
            with contextlib.suppress(BrokenPipeError):
                member.process.stdin.close()

    def _take_in(self, member):
        self.members.remove(member)
        with contextlib.suppress(BrokenPipeError):
            member.process.stdin.close()
        if not member.killed and member.process.returncode != 0:
            self.checker.violation(f"client {member.number} ({member.profile}) ended with "
                                   f"{member.process.returncode}")
        before = len(self.checker.violations)
        self.checker.take(member.log, member.number, not member.killed, member.frozen)
        if len(self.checker.violations) == before:
            member.log.unlink()
