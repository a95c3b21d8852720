#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes what the comments of the chart's values.yaml say into its README.md and its schema.

    helm/document.py            brings both up to date
    helm/document.py --check    fails where they aren't

In values.yaml a comment that begins with `# --` describes the key that follows it, as for
helm-docs, and `## Title` begins a section. A map with a comment of its own is one entry.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parent / "millrace"
BEGIN, END = "<!-- values: written by helm/document.py -->\n", "<!-- end of values -->\n"


@dataclasses.dataclass(frozen=True)
class Entry:
    section: str
    path: tuple[str, ...]
    text: str


def entries(source):
    """The documented keys of values.yaml, in its order."""
    found, section, text, above = [], "", None, []  # `above`: (indent, key) of the maps around.
    for number, line in enumerate(source.splitlines(), 1):
        stripped = line.strip()
        if line.startswith("## "):
            section = line[3:]
        elif stripped.startswith("# -- "):
            text = stripped[5:]
        elif stripped.startswith("#"):
            if text is not None:
                text += " " + stripped[1:].strip()
        elif key := re.match(r"( *)([A-Za-z][\w./-]*):", line):
            indent = len(key[1])
            above = [each for each in above if each[0] < indent] + [(indent, key[2])]
            if text is not None:
                found.append(Entry(section, tuple(name for _, name in above), text))
            text = None
        elif text is not None:
            raise ValueError(f"values.yaml:{number}: expected the key that '{text}' describes")
    return found


def undocumented(values, documented, path=()):
    """The keys that neither are described, nor lie in a map that is, nor hold keys that are."""
    for key, value in values.items():
        here = (*path, key)
        if here in documented:
            continue
        if isinstance(value, dict) and value:
            yield from undocumented(value, documented, here)
        else:
            yield ".".join(here)


def value_at(values, path):
    for key in path:
        values = values[key]
    return values


def table(found, values):
    lines, section = [], None
    for entry in found:
        if entry.section != section:
            section = entry.section
            lines += ["", f"### {section}", "", "| value | default | |", "|---|---|---|"]
        default = json.dumps(value_at(values, entry.path), ensure_ascii=False)
        if len(default) > 60:
            default = "see values.yaml"
        else:
            default = f"`{default}`"
        name = ".".join(entry.path)
        lines.append(f"| `{name}` | {default} | {entry.text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines[1:]) + "\n"


def readme(text, found, values):
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: expected the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{table(found, values)}\n{END}{after}"


def schema(text, found):
    described = json.loads(text)
    for entry in found:
        place = described
        for key in entry.path:
            place = place["properties"][key]
        place.pop("description", None)
        rest = dict(place)
        place.clear()
        place["description"] = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", entry.text)
        place.update(rest)
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where it would")
    check = parser.parse_args().check
    source = (CHART / "values.yaml").read_text()
    values, found = yaml.safe_load(source), entries(source)
    if missing := list(undocumented(values, {entry.path for entry in found})):
        sys.exit(f"values.yaml: without a comment that begins with `# --`: {', '.join(missing)}")
    stale = []
    for name, change in (("README.md", lambda text: readme(text, found, values)),
                         ("values.schema.json", lambda text: schema(text, found))):
        path = CHART / name
        text = path.read_text()
        if change(text) != text:
            stale.append(name)
            if not check:
                path.write_text(change(text))
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run helm/document.py")
    print("up to date" if check or not stale else f"wrote {', '.join(stale)}")


if __name__ == "__main__":
    main()
