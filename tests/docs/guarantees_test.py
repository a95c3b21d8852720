# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Every test that docs/guarantees.md names exists: `Suite.Name`, `file.py::test` or a path."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMISES = (ROOT / "docs/guarantees.md").read_text()
NAMES = re.findall(r"`([^`\s]+)`", PROMISES)


def sources(pattern):
    return "\n".join(path.read_text() for path in (ROOT / "tests").rglob(pattern))


def test_every_test_that_is_named_exists():
    cpp, missing = sources("*.cc"), []
    for name in NAMES:
        if "::" in name:
            file, test = name.split("::")
            found = any(f"def {test}(" in path.read_text() for path in ROOT.rglob(f"tests/**/{file}"))
        elif name.startswith("tests/"):
            found = (ROOT / name).exists()
        elif "." in name:
            suite, test = name.split(".")
            found = re.search(rf"TEST(_F|_P)?\({suite}, {test}\)", cpp) is not None
        else:
            continue
        if not found:
            missing.append(name)
    assert not missing


def test_every_promise_names_a_test():
    promises = re.findall(r"^\*\*.+?(?=^\*\*|^## |\Z)", PROMISES, re.M | re.S)
    assert len(promises) >= 15
    assert [text for text in promises if "\n- `" not in text] == []
