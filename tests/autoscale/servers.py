# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""As many real servers as somebody asks for, each with one replica of a model that sleeps."""

import subprocess
import threading
import time

from server_process import TEST_WORKER, Entry, Server, make_repository, server_command

MODEL = "delay_frame"
SERVICE_SECONDS = 0.05
CAPACITY = 1 / SERVICE_SECONDS  # Requests per second of one server.


def knows_connection_age():
    """Whether these servers have --max-connection-age."""
    return subprocess.run(server_command("--max-connection-age", "1m",
                                         "--model-repository", ".", "--print-config"),
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


class Fleet:
    """Starts and ends servers, on a thread for each. What is in `ready` may get requests: it is
    what a headless service would resolve to. Thread-safe."""

    def __init__(self, folder, on_change, connection_age=None):
        self._repository = make_repository(folder / "repository", [Entry(MODEL, replicas=1)])
        self._folder, self._on_change = folder, on_change
        self._flags = ["--worker", TEST_WORKER, "--drain-delay", "500ms", "--drain-timeout", "20s"]
        if connection_age:
            self._flags += ["--max-connection-age", f"{connection_age}s"]
        self._mutex, self._telling = threading.Lock(), threading.Lock()
        self._threads, self._leave, self._wanted, self._starting = [], {}, 0, 0
        self.ready = []  # Servers.
        self.failures = []  # What went wrong with a server, in words.

    def scale(self, wanted):
        """Asks for so many. The youngest go first. Returns at once."""
        with self._mutex:
            self._wanted = wanted
            while len(self.ready) + self._starting < wanted:
                self._starting += 1
                self._threads.append(threading.Thread(target=self._live))
                self._threads[-1].start()
            leaving = []
            while len(self.ready) > wanted:  # What starts in excess ends when it has started.
                leaving.append(self.ready.pop())
        if leaving:
            self._changed()
        for server in leaving:
            self._leave[server].set()

    def _changed(self):
        with self._telling:  # Whoever tells last tells what is true now.
            self._on_change([server.http for server in list(self.ready)])

    def _live(self):
        """A server's life. It ends with the thread that started it, so that is this one."""
        server, leave = None, threading.Event()
        try:
            server = Server(self._folder, repositories=[self._repository], flags=self._flags)
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append(f"a server did not start: {error}")
        with self._mutex:
            self._starting -= 1
            serves = server is not None and len(self.ready) < self._wanted
            if serves:
                self._leave[server] = leave
                self.ready.append(server)
        if serves:
            self._changed()
            leave.wait()
        if server:
            self._end(server)

    def _end(self, server):
        try:
            server.stop()
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append(f"a server did not end in order: {error}")
            server.kill()

    def wait_ready(self, count):
        while len(self.ready) < count:
            if self.failures:
                raise RuntimeError(self.failures[0])
            time.sleep(0.05)

    def stop(self):
        self.scale(0)
        while self._threads:
            self._threads.pop().join()
