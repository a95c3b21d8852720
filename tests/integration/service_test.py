# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The server as a service: SIGHUP, and what its manager is told."""

import contextlib
import signal
import socket
import time

import client
import pytest
from server_process import Entry, Server, eventually


@pytest.fixture
def manager():
    """The socket of a service manager, and its abstract name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"millrace-manager-{time.monotonic_ns()}"
        listening.bind("\0" + name)
        listening.setblocking(False)
        yield listening, "@" + name


def told(listening):
    messages = []
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(dict(line.split("=", 1)
                                 for line in listening.recv(4096).decode().split("\n")))
    return messages


def test_manager_hears_of_readiness_reloads_the_watchdog_and_the_end(tmp_path, manager):
    listening, name = manager
    env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"}
    with Server(tmp_path, ["identity"], env=env) as server:
        heard = []

        def hears(key):
            heard.extend(told(listening))
            return [each for each in heard if key in each]

        eventually(lambda: hears("READY"))
        heard.clear()
        eventually(lambda: len(hears("WATCHDOG")) > 1)
        before = time.monotonic_ns() // 1000
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: hears("READY"))
        reloading, = hears("RELOADING")
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert heard.index(reloading) < heard.index(hears("READY")[0])
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: hears("STOPPING"))
        assert server.wait() == 0


def test_sighup_reads_again_what_is_good_and_keeps_what_is_not(tmp_path):
    settings = tmp_path / "millrace.yaml"
    settings.write_text("log-level: info\n")
    with Server(tmp_path, ["identity"], flags=["--config", settings]) as server:
        def reads_again(count):
            server.process.send_signal(signal.SIGHUP)
            said = eventually(lambda: server.logged("read again.*")[count - 1:])
            assert len(said) == 1
            return said[0][0]

        assert reads_again(1) == "read again, as SIGHUP demands: the log level"
        settings.write_text("log-levle: debug\n")
        bad = reads_again(2)
        assert "stays as it was" in bad and f"{settings}:1" in bad and "log-level" in bad
        settings.write_text("log-level: error\n")
        assert "stays" not in reads_again(3)
        settings.write_text("log-level: info\n")
        assert "stays" not in reads_again(4)
        assert server.stub.ModelInfer(client.numbered("identity", 1))


def test_sighup_looks_through_a_repository_that_is_watched(tmp_path):
    flags = ["--model-control", "watch", "--watch-settle", "0.1s"]
    with Server(tmp_path, ["identity"], flags=flags) as server:
        Entry("identity", name="later").write(tmp_path / "repository")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.logged("read again.*the model repository"))
        eventually(lambda: server.logged("model 'later'.*serves after"))
