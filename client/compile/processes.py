# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The processes that compile and run packages: each ends with its block or its time."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List

PACKAGE = __package__  # As it was imported: under the name that the build gave the folder.
PATIENCE = 300.0  # Seconds for one command of a worker.


class ProcessTrouble(Exception):
    """A process that was started didn't do what it was for; says why."""


@dataclasses.dataclass
class Built:
    seconds: float
    mib: float  # The most memory that one of its processes had.


def start(module: str, arguments: List[str], environment: Dict[str, str],
          **streams: Any) -> subprocess.Popen:
    """Starts a module of this package in a process group of its own, with more in its environment."""
    folder = str(pathlib.Path(sys.modules[PACKAGE].__file__).parents[1])
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen([sys.executable, "-m", f"{PACKAGE}.{module}", *arguments], text=True,
                            start_new_session=True,
                            env={**os.environ, "PYTHONPATH": path, **environment}, **streams)


def end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        process.wait()


def build(program: pathlib.Path, package: pathlib.Path, isa: str, settings: Dict[str, Any],
          log: pathlib.Path, seconds: float) -> Built:
    """Compiles the program within so many seconds. Raises ProcessTrouble."""
    settings_file = package.with_suffix(".json")
    settings_file.write_text(json.dumps(settings))
    begin = time.monotonic()
    with log.open("w") as errors, package.with_suffix(".out").open("w+") as output:
        process = start("builder", [str(program), str(package), isa, str(settings_file)], {},
                        stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    break
                if time.monotonic() - begin > seconds:
                    raise ProcessTrouble(f"not compiled within {seconds:.0f} s, which was left of "
                                         "--budget")
                time.sleep(0.05)
        finally:
            end(process)
        output.seek(0)
        said = output.read().splitlines()
    if process.returncode:
        raise ProcessTrouble(f"the compiler {how_it_ended(process.returncode)}{last_words(log)}")
    if error := json.loads(said[-1]).get("error"):
        raise ProcessTrouble(error)
    return Built(time.monotonic() - begin, usage.ru_maxrss / 1024)


class Worker:
    """A process that runs a package or a module; see worker.py for its commands."""

    def __init__(self, kind: str, file: pathlib.Path, threads: int, log: pathlib.Path):
        """A package's own checks of its inputs are on, as in a server that tries it."""
        self._log = log
        answers, theirs = os.pipe()
        with log.open("w") as errors:
            self._process = start("worker", [kind, str(file), str(threads)],
                                  {"OMP_NUM_THREADS": str(threads), "AOTI_RUNTIME_CHECK_INPUTS": "1"},
                                  stdin=subprocess.PIPE, stdout=theirs, stderr=errors)
        os.close(theirs)
        self._answers = os.fdopen(answers)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: Any) -> None:
        end(self._process)
        self._process.stdin.close()
        self._answers.close()

    def run(self, inputs: pathlib.Path, into: pathlib.Path) -> None:
        self._ask({"run": str(inputs), "into": str(into)})

    def milliseconds(self, inputs: pathlib.Path, seconds: float) -> float:
        return self._ask({"time": str(inputs), "seconds": seconds})["milliseconds"]

    def memory_mib(self) -> float:
        return self._ask({"memory": True})["mib"]

    def _ask(self, command: Dict[str, Any]) -> Dict[str, Any]:
        watchdog = threading.Timer(PATIENCE, self._process.kill)
        watchdog.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps(command), file=self._process.stdin, flush=True)
            answer = self._answers.readline()
        finally:
            watchdog.cancel()
        if not answer:
            ended = how_it_ended(self._process.wait())
            raise ProcessTrouble(f"running it {ended}{last_words(self._log)}")
        return json.loads(answer)


def how_it_ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else "failed"


def last_words(log: pathlib.Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else ""
