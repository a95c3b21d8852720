# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks for seconds and checks that every row is there; judges no figure."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import compile as compile_bench
import pool
import pytest
import replicas
import run
import tune
import warm
from programs import Load, Programs, Variant

BUILD = pathlib.Path(os.environ.get("MILLRACE_BIN", run.REPOSITORY / "build/bin")).parent
MODELS = pathlib.Path(os.environ.get("MILLRACE_TEST_MODELS", BUILD / "models"))

# What each row of a section is known by.
EXPECTED = {
    "efficiency": [{"model": model, "batch": batches[-1]}
                   for model, batches in run.SMOKE.batches.items()],
    "scaling": [{"model": model} for model in run.SMOKE.batches],
    "cost": [{"load": str(load)} for load in run.IDENTITY_LOADS],
    "per_request": [{"load": f"identity, {load}"} for load in run.IDENTITY_LOADS],
}


def bench(*arguments, program=run):
    """Returns what the command prints."""
    command = [sys.executable, program.__file__, *arguments, "--build", BUILD, "--models", MODELS]
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                          timeout=240)
    print(done.stdout)
    assert done.returncode == 0
    return done.stdout


def test_the_tables_have_every_row(tmp_path):
    figures = tmp_path / "figures.json"
    printed = bench("--smoke", "--json", figures)
    results = json.loads(figures.read_text())
    for section, rows in EXPECTED.items():
        for wanted in rows:
            found = [row for row in results[section] if wanted.items() <= row.items()]
            assert len(found) == 1, f"{section} has {len(found)} rows with {wanted}"
            assert found[0].get("ratio", found[0].get("server_us")) > 0
            assert all(str(value) in printed for value in wanted.values())


def test_the_table_of_threads_has_every_shape():
    printed = bench("threads", "--model", "tiny_mlp", "--batches", "1,8", "--seconds", 0.02)
    for shape in ("1 × 1", "2 × 1", "1 × 2", "2 × 2"):
        assert f"| {shape} " in printed


def test_submit_and_select_allocate_nothing():
    done = subprocess.run([BUILD / "benchmarks/benchmark-scheduler", "--benchmark_format=json",
                           "--benchmark_min_time=0.01"],
                          text=True, stdout=subprocess.PIPE, timeout=240, check=True)
    found = {row["name"]: row for row in json.loads(done.stdout)["benchmarks"]}
    selecting = {name: row for name, row in found.items() if name.startswith("SubmitAndSelect")}
    assert len(selecting) == 8
    # The counter is a mean over the iterations: what is allocated but once doesn't show.
    assert {name for name, row in selecting.items() if row["allocations"] > 0.001} == set()
    whole = [row for name, row in found.items() if name.startswith("ThroughTheDispatcher")]
    assert len(whole) == 4
    # The answer's memory; and a batch, for all of its requests.
    assert all(row["allocations_per_request"] < 2 for row in whole)


def test_the_table_of_holding_has_every_row(tmp_path):
    figures = tmp_path / "figures.json"
    printed = bench("hold", "--smoke", "--json", figures)
    results = json.loads(figures.read_text())
    loads = len(run.HOLD_CLOSED) + len(run.HOLD_OPEN)
    assert len(results) == len(run.HOLD_MODELS) * 2 * loads
    for delay in run.HOLD_MODELS:
        rows = [row for row in results if row["model"] == delay.name]
        assert [row["replicas"] for row in rows] == [1] * loads + [2] * loads
        for row in rows:
            assert row["ratio"] > 0 and 0 < row["fairness"][0] <= 1
            # No answer comes sooner than the model takes for one row.
            assert min(row["p50_us"]) >= 1e3 * (delay.setup_ms + delay.row_ms)
            assert re.search(rf"\| +{re.escape(row['load'])} \|", printed)


def test_replicas_are_smaller_than_processes_that_load_the_model():
    command = [sys.executable, replicas.__file__, "--deaths", 2, "--build", BUILD,
               "--models", MODELS / "bench"]
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                          timeout=240, check=True)
    [part] = re.findall(r"that loads the model by itself: (\S+)$", done.stdout, re.MULTILINE)
    assert 0 < float(part) < 0.5
    assert "from death to the first answer" in done.stdout


def test_the_table_of_first_requests_has_every_case(tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, warm.__file__, "--only", "tiny_mlp.pt,", "--rounds", 1, "--repeats", 3,
               "--json", figures, "--build", BUILD, "--models", MODELS / "bench"]
    printed = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                             timeout=240, check=True).stdout
    rows = json.loads(figures.read_text())
    assert {(row["model"], row["batch"], row["replica"]) for row in rows} == {
        (f"tiny_mlp.pt, {threads}", batch, replica) for threads in ("1 thread", "2 threads")
        for batch in warm.BATCHES for replica in ("started", "replaced")}
    for row in rows:
        assert row["ratio"] > 0 and len(row["first"]) == (1 if row["replica"] == "started" else 2)
        assert f"| {row['model']} " in printed


def test_the_table_of_pools_has_every_setting():
    printed = bench("--images", 8, "--rounds", 1, "--pools", 2, "--workers", 1, program=pool)
    figures = json.loads((BUILD / "pool/pool.json").read_text())
    compared = pool.settings(2, pools=[2], workers=[1])
    assert [(row["name"], row["cores"]) for row in figures["settings"]] \
        == [(setting.name, setting.cores) for setting in compared]
    for row in figures["settings"]:
        assert min(row["transform_ms"], row["inference_ms"], row["private_mib"]) > 0
        assert row["total_mib"] > row["private_mib"] and 0 < row["cpu_use"] < 1.1
        assert row["pool"] == (2 if row["cores"] == 2 else 1)
        assert f"| {row['name']} " in printed
    # Pixels differ by a level here and there.
    assert figures["disagreement"] < 0.5
    assert [goal["goal"] for goal in figures["goals"]] == ["≥ 1.9", "≥ 1.3", "≤ 0.5", "≤ 0.5"]
    assert all(goal["what"] in printed for goal in figures["goals"])
    for plot in ("pool-time.png", "pool-stages.png"):
        assert (BUILD / "pool" / plot).stat().st_size > 5000


def test_the_table_of_tuning_has_every_number_of_threads(tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, tune.__file__, "--quotas", 1, "--models", "tiny_mlp", "--budget", 4,
               "--rounds", 1, "--seconds", 0.1, "--json", figures, "--build", BUILD,
               "--from-models", MODELS / "bench"]
    printed = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                             timeout=240, check=True).stdout
    [row] = json.loads(figures.read_text())
    assert (row["model"], row["quota"]) == ("tiny_mlp", 1)
    assert list(row["fixed"]) == [str(threads) for threads in tune.THREADS]
    assert all(rate > 0 for rates in (*row["fixed"].values(), row["tuned"]) for rate in rates)
    # Of one core nobody can make more than one replica of one thread.
    for plan in (row["plan"], row["again"]):
        assert (plan["replicas"], plan["threads"]) == (1, 1)
        assert tune.name_of(plan) in printed
    assert f"{row['of_best_fixed']:.2f}" in printed and f"{row['of_first']:.2f}" in printed


def test_the_table_of_compiling_has_a_row_for_each_way(tmp_path):
    command = [sys.executable, compile_bench.__file__, "--net", "tiny_mlp", "--variants", "plain",
               "--cache", tmp_path, "--build", BUILD]
    printed = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                             timeout=240, check=True).stdout
    assert re.search(r"\| tiny_mlp, batch 16 \| +TorchScript \| +[\d.]+ \| +[\d.]+ \|", printed)
    ratio = r"\| +[\d.]+ \([\d.]+\) "
    assert re.search(rf"\| +\| +plain, kept {ratio}{ratio}\|", printed)


# ---- The open loop ----

@pytest.fixture(scope="module")
def server():
    cpus = sorted(os.sched_getaffinity(0))[:2]
    programs = Programs(BUILD, MODELS / "delay", cpus, "tests/millrace-test-worker")
    light = run.HOLD_MODELS[-1]
    with programs.server({light.name: Variant(light.model, 8, 1)}) as running:
        yield running


@pytest.mark.parametrize("through", [{"calls": 2}, {"streams": 2, "window": 4}])
def test_open_loop_charges_a_stall_to_all_that_was_due_meanwhile(server, through):
    """A loop that only measured what its two calls could send would see two slow answers of 400."""
    load = Load(rate=200, seed=1, **through)
    name = run.HOLD_MODELS[-1].name
    assert server.load_variant(name, load, 2, 0.2).p50_us < 0.2e6
    timers = [threading.Timer(seconds, os.kill, (server.pids[0], number))
              for seconds, number in ((0.8, signal.SIGSTOP), (1.6, signal.SIGCONT))]
    for timer in timers:
        timer.start()
    stalled = server.load_variant(name, load, 2, 0.2)
    for timer in timers:
        timer.join()
    assert 0.5e6 < stalled.p99_us < 5e6
    assert stalled.errors == {} and 0.8 * 200 < stalled.per_second < 1.2 * 200


@pytest.mark.parametrize("through", [{"calls": 50}, {"streams": 4, "window": 32}])
def test_open_loop_counts_errors_by_their_code(server, through):
    model = run.HOLD_MODELS[-1].model
    found = server.load(Load(rate=500, seed=1, **through), 1, "nobody", model)
    assert list(found.errors) == ["NOT_FOUND"] and found.per_second == 0
    assert 350 < found.errors["NOT_FOUND"] < 650
