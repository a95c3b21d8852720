#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks for seconds and checks that every row is there; it judges no figure.

    python tests/benchmarks/smoke_test.py BUILD_FOLDER MODELS_FOLDER
"""

import json
import pathlib
import subprocess
import sys

import run

EXPECTED = {
    "efficiency": [{"model": model, "batch": batches[-1]} for model, batches in
                   run.SMOKE.batches.items()],
    "scaling": [{"model": model} for model in run.SMOKE.batches],
    "cost": [{"load": str(load)} for load in run.IDENTITY_LOADS],
    "per_request": [{"load": f"identity, {load}"} for load in run.IDENTITY_LOADS],
}


def bench(*arguments: object) -> str:
    command = [sys.executable, pathlib.Path(run.__file__), *arguments]
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                          timeout=240)
    print(done.stdout)
    assert done.returncode == 0, f"run.py ended with {done.returncode}"
    return done.stdout


def check_row(rows: list, wanted: dict, section: str, printed: str) -> None:
    found = [row for row in rows if wanted.items() <= row.items()]
    assert len(found) == 1, f"{section} has {len(found)} rows with {wanted}"
    for value in wanted.values():
        assert str(value) in printed, f"{value} is in no table"
    figure = found[0].get("ratio", found[0].get("server_us"))
    assert figure > 0, f"{section}, {wanted}: {figure}"


def main() -> None:
    build, models = map(pathlib.Path, sys.argv[1:])
    folders = ["--build", build, "--models", models]
    figures = build / "benchmarks/smoke.json"
    printed = bench("--smoke", *folders, "--json", figures)
    results = json.loads(figures.read_text())
    for section, rows in EXPECTED.items():
        for wanted in rows:
            check_row(results[section], wanted, section, printed)

    printed = bench("threads", "--model", "tiny_mlp", "--batches", "1,8", "--seconds", 0.02,
                    *folders)
    for shape in ("1 × 1", "2 × 1", "1 × 2", "2 × 2"):
        assert f"| {shape} " in printed, f"threads has no row {shape}"


if __name__ == "__main__":
    main()
