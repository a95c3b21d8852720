# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks for seconds and checks that every row is there; judges no figure."""

import json
import os
import pathlib
import subprocess
import sys

import run

BUILD = pathlib.Path(os.environ.get("MILLRACE_BIN", run.REPOSITORY / "build/bin")).parent
MODELS = pathlib.Path(os.environ.get("MILLRACE_TEST_MODELS", BUILD / "models")) / "bench"

# What each row of a section is known by.
EXPECTED = {
    "efficiency": [{"model": model, "batch": batches[-1]}
                   for model, batches in run.SMOKE.batches.items()],
    "scaling": [{"model": model} for model in run.SMOKE.batches],
    "cost": [{"load": str(load)} for load in run.IDENTITY_LOADS],
    "per_request": [{"load": f"identity, {load}"} for load in run.IDENTITY_LOADS],
}


def bench(*arguments):
    """Returns what the command prints."""
    command = [sys.executable, run.__file__, *arguments, "--build", BUILD, "--models", MODELS]
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
