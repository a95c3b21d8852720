# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""perf_analyzer runs to its end in every mode and finds the server's own statistics.

`./dev setup` fetches it where it exists (x86-64); MILLRACE_PERF_ANALYZER names another.
"""

import os
import platform
import re
import subprocess

import pytest
from server_process import ROOT, Server

PROGRAM = os.environ.get("MILLRACE_PERF_ANALYZER", ROOT / ".cache" / "tools" / "perf_analyzer")
CONCURRENCY = "1:16:15"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64",
                                reason="perf_analyzer exists for x86-64 only")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), ["tiny_mlp", "dynamic"]) as running:
        yield running


def run(server, *flags, model="tiny_mlp"):
    """Its report; the windows are short, since nobody wants to know how fast it is."""
    ended = subprocess.run(
        [str(PROGRAM), "-m", model, "-u", server.address, "-i", "grpc", "--measurement-mode",
         "count_windows", "--measurement-request-count", "60", "--max-trials", "20",
         "--stability-percentage", "999", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.parametrize("flags", [
    ["--sync"], ["--async"], ["--async", "--streaming"], ["--async", "-b", "4"],
    ["--async", "--streaming", "-b", "32"]], ids=" ".join)
def test_runs_to_its_end_with_server_side_statistics(server, flags):
    report = run(server, *flags, "--concurrency-range", CONCURRENCY)
    assert re.findall(r"Request concurrency: (\d+)", report) == ["1", "16"]
    counts = [int(count) for count in re.findall(r"Inference count: (\d+)", report)]
    executed = [int(count) for count in re.findall(r"Execution count: (\d+)", report)]
    assert len(counts) == len(executed) == 2 and min(executed) > 0
    assert all(count >= 60 for count in counts)
    assert all(count >= runs for count, runs in zip(counts, executed))
    assert len(re.findall(r"queue \d+ usec.*compute infer \d+ usec", report)) == 2
    assert "rror" not in report


def test_runs_with_a_shape_of_its_own(server):
    report = run(server, "--async", "--shape", "INPUT__0:10", model="dynamic")
    assert re.search(r"Inference count: [1-9]", report)


def test_leaves_nothing_behind(server):
    for gauge in ("millrace_streams", "millrace_in_flight_requests"):
        assert server.metric(gauge) == 0
