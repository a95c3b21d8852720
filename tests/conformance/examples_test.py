# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Every example runs against a server."""

import subprocess
import sys

import pytest
from server_process import BIN, ROOT, Server

PYTHON = sorted((ROOT / "examples" / "python").glob("*.py"))
CPP = [BIN.parent / "examples" / source.stem
       for source in sorted((ROOT / "examples" / "cpp").glob("*.cc"))]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), ["identity"]) as running:
        yield running


@pytest.mark.parametrize("command", [[sys.executable, str(path)] for path in PYTHON] +
                         [[str(path)] for path in CPP], ids=lambda command: command[-1][-30:])
def test_example(server, command):
    before = server.metric("millrace_requests_total", model="identity", code="OK")
    ended = subprocess.run([*command, "--url", server.address, "--model", "identity"],
                           capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout
    assert server.metric("millrace_requests_total", model="identity", code="OK") > before


def test_examples_are_there():
    assert len(PYTHON) >= 3 and len(CPP) >= 2
