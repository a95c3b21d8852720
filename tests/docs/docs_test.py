# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of README.md and docs/: every block marked `sh`, in order, in one shell.

The shell's folder looks like the repository's root, but what is written under build/ is thrown
away. docs/getting-started.md starts a server on the default ports, which the other pages talk to;
its last block stops it. `./dev …` is only checked to exist, since those commands have tests of
their own and this test is run by one; and /path/to/… stands for a reader's own.
"""

import contextlib
import os
import pathlib
import re
import signal
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
    script = "set -euo pipefail\n"
    for page, line, commands in all_blocks():
        script += f"echo '@@ {page}:{line}'\n{commands}\n"
    log = folder / "log"
    with log.open("w") as output:
        shell = subprocess.Popen(["bash", "-c", script], cwd=folder, stdin=subprocess.DEVNULL,
                                 stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = shell.wait(timeout=400)
        except subprocess.TimeoutExpired:
            code = "nothing, and went on"
        finally:  # Also the server that it has started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    said = log.read_text()
    assert "is taken" not in said, f"the ports 8001 and 8002 must be free:\n{said}"
    place = re.findall(r"^@@ (\S+)$", said, re.MULTILINE)[-1]
    assert code == 0, f"{place} returned {code}:\n{said}"


def test_commands_of_dev_exist():
    offered = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True,
                             check=True).stdout
    named = {command for page in [*PAGES, "CONTRIBUTING.md"] for command in
             re.findall(r"\./dev ([a-z]+)", (ROOT / page).read_text())}
    assert named
    for command in named - {"help"}:
        assert re.search(rf"^  {command}\b", offered, re.MULTILINE), f"./dev {command}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
