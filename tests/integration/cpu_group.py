# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A cgroup of a server's own whose CPU quota and cpuset a test changes, where one can be made."""

import contextlib
import os
import pathlib
import time

ROOT = pathlib.Path("/sys/fs/cgroup")
PERIOD = 100_000  # Microseconds.


class CpuGroup:
    """Made by its construction; `why_not` says why it isn't there."""

    def __init__(self):
        name = f"millrace-test-{os.getpid()}"
        self._unified = (ROOT / "cgroup.controllers").exists()
        self._cpu = ROOT / name if self._unified else ROOT / "cpu" / name
        self._cpuset = self._cpu if self._unified else ROOT / "cpuset" / name
        self.why_not = ""
        try:
            for folder in {self._cpu, self._cpuset}:
                folder.mkdir()
            self.set_quota(None)
            if not self._unified:
                memory = (self._cpuset.parent / "cpuset.mems").read_text()
                (self._cpuset / "cpuset.mems").write_text(memory)
            self.set_cpus(sorted(os.sched_getaffinity(0)))
            # As root of a container all of that may be allowed, and this not.
            self._process_may_enter()
        except OSError as error:
            self.why_not = f"no CPU cgroup can be made here: {error}"
            self.remove()

    def _process_may_enter(self):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(OSError):
                for folder in {self._cpu, self._cpuset}:
                    (folder / "cgroup.procs").write_text(str(os.getpid()))
                os._exit(0)
            os._exit(1)
        if os.waitpid(pid, 0)[1] != 0:
            raise PermissionError("no process may enter it")

    def set_quota(self, cores):
        """So many cores, or any number with None."""
        quota = int(cores * PERIOD) if cores else None
        if self._unified:
            (self._cpu / "cpu.max").write_text(f"{quota or 'max'} {PERIOD}")
        else:
            (self._cpu / "cpu.cfs_quota_us").write_text(str(quota or -1))

    def set_cpus(self, cpus):
        (self._cpuset / "cpuset.cpus").write_text(",".join(map(str, cpus)))

    def prefix(self):
        """The command's beginning that has it run inside."""
        enter = " && ".join(f"echo $$ > {folder}/cgroup.procs"
                            for folder in sorted({self._cpu, self._cpuset}))
        return ("sh", "-c", f'{enter} && exec "$@"', "sh")

    def remove(self):
        for folder in {self._cpu, self._cpuset}:
            deadline = time.monotonic() + 5
            while folder.is_dir() and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    folder.rmdir()
                time.sleep(0.01)
