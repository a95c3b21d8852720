# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup for a server, where one can be made."""

import contextlib
import os
import pathlib
import time

ROOT = pathlib.Path("/sys/fs/cgroup")


class MemoryGroup:
    """Made by its construction; `why_not` says why it isn't there."""

    def __init__(self):
        first = ROOT / "memory" if (ROOT / "memory").is_dir() else ROOT
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if first != ROOT else (
            "memory.max", "memory.current")
        self.path = first / f"millrace-chaos-{os.getpid()}"
        self._limit, self._usage = (self.path / name for name in names)
        self.why_not = ""
        try:
            self.path.mkdir()
            self._limit.read_text()
        except OSError as error:
            self.why_not = f"no memory cgroup can be made here: {error}"
            self.remove()

    def prefix(self):
        """The command's beginning that has it run inside."""
        if self.why_not:
            return ()
        return ("sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh")

    def leave(self, more):
        """Limits it to so many bytes more than it has; returns how many that are."""
        limit = int(self._usage.read_text()) + more
        self._limit.write_text(str(limit))
        return limit

    def remove(self):
        deadline = time.monotonic() + 5
        while self.path.is_dir() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            time.sleep(0.01)
