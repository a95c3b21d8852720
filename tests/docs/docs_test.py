# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of README.md and docs/: every block marked `sh`, in order, in one shell.

The shell's folder looks like the repository's root, but what is written under build/ is thrown
away. docs/getting-started.md starts a server on the default ports, which the other pages talk to;
its last block stops it. `./dev …` is only checked to exist, since those commands have tests of
their own and this test is run by one; and /path/to/… stands for a reader's own.
"""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MILLRACE_BIN", ROOT / "build" / "bin")).parent
FIRST = "docs/getting-started.md"
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/*.md")))]


def blocks(page):
    """The `sh` blocks of a page, as (line, commands)."""
    text = (ROOT / page).read_text()
    return [(text[:block.start()].count("\n") + 1, block[1])
            for block in re.finditer(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def is_run(commands):
    return "./dev " not in commands and "/path/to/" not in commands


def all_blocks():
    """What is run, as (page, line, commands): getting started, the other pages, and its end."""
    found = {page: [(page, line, commands) for line, commands in blocks(page) if is_run(commands)]
             for page in PAGES}
    *beginning, end = found.pop(FIRST)
    return [*beginning, *(block for page in found.values() for block in page), end]


@pytest.fixture
def folder(tmp_path):
    """Looks like the repository after a build."""
    (tmp_path / "build").mkdir()
    for path in ROOT.iterdir():
        if path.name != "build":
            (tmp_path / path.name).symlink_to(path)
    for path in BUILD.iterdir():
        (tmp_path / "build" / path.name).symlink_to(path)
    return tmp_path


def test_every_command_works(folder):
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    for page, line, commands in all_blocks():
        script += f"echo '@@ {page}:{line}'\n{commands}\n"
    log = folder / "log"
    with log.open("w") as output:
        ended = subprocess.run(["setpriv", "--pdeathsig", "KILL", "bash", "-c", script],
                               cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
                               stderr=subprocess.STDOUT, timeout=480, check=False)
    said = log.read_text()
    place = re.findall(r"^@@ (\S+)$", said, re.MULTILINE)[-1]
    assert ended.returncode == 0, f"{place} failed:\n{said}"
    print(said)


def test_commands_of_dev_exist():
    offered = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True,
                             check=True).stdout
    named = {command for page in [*PAGES, "CONTRIBUTING.md"] for command in
             re.findall(r"\./dev ([a-z]+)", (ROOT / page).read_text())}
    assert named
    for command in named - {"help"}:
        assert re.search(rf"^  {command}\b", offered, re.MULTILINE), f"./dev {command}"


def test_every_promise_names_tests_that_exist():
    promises = (ROOT / "docs" / "guarantees.md").read_text()
    in_python = re.findall(r"`(\w+_test\.py)::(\w+)`", promises)
    in_cpp = re.findall(r"`(\w+)\.(\w+)`", re.sub(r"`[^`]*\.py[^`]*`", "", promises))
    assert len(in_python) > 10 and len(in_cpp) > 10
    for file, name in in_python:
        path, = ROOT.glob(f"tests/*/{file}")
        assert f"def {name}(" in path.read_text(), f"{file}::{name}"
    sources = "".join(path.read_text() for path in ROOT.glob("tests/**/*.cc"))
    found = set(re.findall(r"\bTEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\)", sources))
    assert set(in_cpp) <= found, set(in_cpp) - found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
