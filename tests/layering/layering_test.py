#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Holds the code of server/ and client/ to the map in server/README.md.

Reads the table of arrows there and fails on
  1. an include, our own or third-party, that the folder's row does not allow,
  2. a CMake target linked to a folder that the row does not allow,
  3. a folder without a row, or a row without a folder,
  4. an arrow that does not point to a lower level (so there can be no cycle),
  5. clocks, locks, threads and output of the server outside the files that own them.

Before it judges the tree it proves on small trees of its own that each of these is detected.
Run it as it is; it takes the repository's root as an optional argument.
"""

import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = {".h", ".cc"}
UNMAPPED = {"decisions"}  # Prose, no code.


def folder_of(path: str) -> str | None:
    """Returns a file's folder as the map names it: `rpc`, `client`, `client/cli`."""
    top, *inner = path.split("/")[:-1] or [""]
    if top == "server":
        return inner[0] if inner else None
    return "/".join([top, *inner]) if top in ("client", "tests", "examples") else None

# Which library an include belongs to, by how the include begins (or, generated code, ends).
LIBRARIES = [
    (r"proto/.*\.grpc\.pb\.h$", "gRPC"),
    (r"proto/.*\.pb\.h$", "protobuf"),
    (r"(grpc|grpcpp|grpc\+\+)/", "gRPC"),
    (r"google/(protobuf|rpc)/", "protobuf"),
    (r"(torch|ATen|c10|caffe2)/", "libtorch"),
    (r"prometheus/", "prometheus-cpp"),
    (r"nlohmann/", "nlohmann-json"),
    (r"httplib\.h$", "cpp-httplib"),
    (r"(spdlog|fmt)/", "spdlog"),
    (r"CLI/", "CLI11"),
    (r"yaml-cpp/", "yaml-cpp"),
    (r"openssl/", "libcrypto"),
    (r"seccomp\.h$", "libseccomp"),
    (r"lib(av\w+|sw\w+)/", "libav"),
    (r"(jpeglib|jerror|turbojpeg)\.h$", "libjpeg-turbo"),
    (r"png\.h$", "libpng"),
    (r"webp/", "libwebp"),
    (r"libexif/", "libexif"),
    (r"jemalloc/", "jemalloc"),
    (r"(zlib|zip)\.h$", "a compression library"),
    (r"(cuda\w*|nvml)\.h$", "CUDA"),
]
# Open to all: the standard library and POSIX (no folder, or one of these) and Abseil.
OPEN = re.compile(r"([^/]+|(absl|sys|linux|net|netinet|arpa|asm|bits)/.*)$")

# What a server folder may use only in the files named (regular expressions on the path).
OWNED = [
    (
        "the real clock or sleeping; use base/clock.h",
        r"\b(sleep_for|sleep_until|nanosleep|usleep)\b|\babsl::SleepFor\b|"
        r"\bsleep\s*\(|\b(steady|system|high_resolution)_clock::now\b|\babsl::Now\b|"
        r"\bclock_gettime\b",
        r"base/clock\.cc|worker/syscall_filter\.cc",  # The latter only names them.
    ),
    (
        "a lock of its own; use base/mutex.h",
        r"\bstd::(recursive_|shared_|timed_)?mutex\b|\bstd::condition_variable|"
        r"\babsl::(Reader|Writer)?(Mutex|MutexLock|CondVar)\b",
        r"base/mutex\.(h|cc)",
    ),
    (
        "a thread of its own; use base/thread.h",
        r"\bstd::(thread(?!::id)|jthread|async)\b|\bpthread_create\b",
        r"base/thread\.(h|cc)",
    ),
    (
        "output of its own; use base/log.h",
        r"\b(f|v|vf)?printf\s*\(|\bf?puts\s*\(|\bstd::(cout|cerr|clog)\b",
        r"base/(check|log)\.(h|cc)|(app|worker)/main\.cc",
    ),
]


@dataclass
class Row:
    """A line of the table: what a folder may include."""

    level: int
    folders: set[str] = field(default_factory=set)
    options_only: bool = False
    libraries: set[str] = field(default_factory=set)
    libraries_in_cc: set[str] = field(default_factory=set)


def read_map(readme: str) -> dict[str, Row]:
    """Returns the rows of the table headed `| level | folder | may include | third party |`."""
    table = re.search(r"^\| level \| folder \| may include \| third party \|\n\|[-|]+\n((\|.*\n)+)",
                      readme, re.MULTILINE)
    if not table:
        sys.exit("server/README.md has no table '| level | folder | may include | third party |'.")
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in table.group(1).splitlines()]
    levels = {cells[1]: int(cells[0]) for cells in lines}
    return {cells[1]: read_row(cells, levels) for cells in lines}


def read_row(cells: list[str], levels: dict[str, int]) -> Row:
    folder, may_include, third_party = cells[1:]
    row = Row(levels[folder])
    if every := re.search(r"every folder below(?: but (.*))?$", may_include):
        below = {name for name, level in levels.items()
                 if level < row.level and not name.startswith("client")}
        row.folders = below - set(split(every.group(1) or ""))
        row.options_only = "options.h" in may_include
    else:
        row.folders = set(split(may_include))
    if unknown := row.folders - set(levels):
        sys.exit(f"server/README.md: {folder} may include {sorted(unknown)}, which have no row.")
    for library in split(third_party):
        name = library.removesuffix("(.cc only)").strip()
        (row.libraries_in_cc if name != library else row.libraries).add(name)
    return row


def split(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(",") if name.strip() not in ("", "–", "-")]


def without_comments(code: str, strings: bool) -> str:
    """Blanks comments, and strings too where `strings` is false; keeps the lines."""
    pattern = r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''

    def blank(match: re.Match) -> str:
        text = match.group()
        if strings and not text.startswith("/"):
            return text
        return "\n" * text.count("\n")

    # A digit separator (1'000) is no quote.
    return re.sub(pattern, blank, re.sub(r"(?<=\d)'(?=\d)", "", code), flags=re.DOTALL)


def library_of(include: str) -> str | None:
    """Returns the third-party library, None where it is open to all."""
    for pattern, library in LIBRARIES:
        if re.match(pattern, include):
            return library
    return None if OPEN.match(include) else f"unknown library '{include.split('/')[0]}'"


def check_include(folder: str, path: str, include: str, row: Row) -> str | None:
    """Returns what is wrong with the include, None where the row allows it."""
    if target := folder_of(include):
        if target == folder:
            return None
        if target not in row.folders:
            return f"{folder}/ may not include {target}/"
        if row.options_only and not include.endswith("options.h"):
            return f"{folder}/ may include only the *options.h of other folders"
        return None
    library = library_of(include)
    if library is None or library in row.libraries:
        return None
    if library not in row.libraries_in_cc:
        return f"{folder}/ may not include {library}"
    return None if path.endswith(".cc") else f"{folder}/ may include {library} in .cc files only"


def check_source(path: str, text: str, row: Row) -> list[str]:
    found = []
    for number, line in enumerate(without_comments(text, strings=True).split("\n"), 1):
        if include := re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line):
            if wrong := check_include(folder_of(path), path, include.group(1), row):
                found.append(f"{path}:{number}: includes {include.group(1)}: {wrong}")
    if not path.startswith("server/"):
        return found
    for number, line in enumerate(without_comments(text, strings=False).split("\n"), 1):
        for what, pattern, owners in OWNED:
            use = re.search(pattern, line)
            if use and not re.fullmatch(owners, path.removeprefix("server/")):
                found.append(f"{path}:{number}: '{use.group().strip()}' is {what}")
    return found


def check_cmake(path: str, text: str, arrows: dict[str, Row]) -> list[str]:
    folder = folder_of(path)
    targets = {"millrace_" + name.split("/")[-1]: name for name in arrows}
    linked = {targets[target] for target in re.findall(r"\bmillrace_\w+", re.sub(r"#.*", "", text))
              if target in targets}
    return [f"{path}: links {name}/: {folder}/ may not include it"
            for name in sorted(linked - arrows[folder].folders - {folder})]


def check_map(folders: set[str], arrows: dict[str, Row]) -> list[str]:
    found = [f"{name}/ has no row in server/README.md"
             for name in sorted(folders - set(arrows) - UNMAPPED)]
    found += [f"server/README.md has a row for {name}, but there is no such folder"
              for name in sorted(set(arrows) - folders)]
    for name, row in arrows.items():
        found += [f"server/README.md: {name} (level {row.level}) may include {target} "
                  f"(level {arrows[target].level}); an arrow points to a lower level"
                  for target in sorted(row.folders) if arrows[target].level >= row.level]
    return found


def check_tree(root: Path) -> list[str]:
    """Returns everything in the tree that the map forbids, one line each."""
    arrows = read_map((root / "server/README.md").read_text(encoding="utf-8"))
    paths = [file.relative_to(root).as_posix() for top in ("server", "client")
             for file in sorted((root / top).rglob("*"))
             if file.is_file() and file.parent.name != "__pycache__"]
    found = check_map({folder_of(path) for path in paths} - {None}, arrows)
    for path in paths:
        if (row := arrows.get(folder_of(path))) is None:
            continue
        text = (root / path).read_text(encoding="utf-8")
        if Path(path).suffix in SOURCES:
            found += check_source(path, text, row)
        elif path.endswith("/CMakeLists.txt"):
            found += check_cmake(path, text, arrows)
    return found


SELF_TEST_MAP = """\
| level | folder | may include | third party |
|---|---|---|---|
| 0 | base | – | – |
| 1 | metrics | base | prometheus-cpp (.cc only) |
| 2 | config | the `*options.h` of every folder below | – |
| 0 | client | – | – |
"""
# (path, content, what must be found; empty: nothing)
SELF_TESTS = [
    ("server/metrics/a.cc", '#include "server/base/b.h"\n#include <prometheus/counter.h>\n', ""),
    ("server/base/a.h", "// std::mutex, #include <torch/script.h>\n#include <vector>\n", ""),
    ("server/base/a.cc", 'const char* text = "std::cout";\nint n = 1\'000\'000;\n', ""),
    ("server/base/a.cc", "auto s = snprintf(buffer, n, format);\n", ""),
    ("server/config/a.h", '#include "server/metrics/metrics_options.h"\n', ""),
    ("server/base/a.h", '#include "server/metrics/a.h"\n', "base/ may not include metrics/"),
    ("server/base/a.h", "  #  include <torch/script.h>\n", "may not include libtorch"),
    ("server/base/a.h", '#include "proto/grpc_service.pb.h"\n', "may not include protobuf"),
    ("server/base/a.h", "#include <boost/any.hpp>\n", "unknown library 'boost'"),
    ("server/base/a.h", '#include "client/stream.h"\n', "base/ may not include client/"),
    ("server/metrics/a.h", "#include <prometheus/counter.h>\n", "in .cc files only"),
    ("server/config/a.h", '#include "server/base/clock.h"\n', "only the *options.h"),
    ("server/base/CMakeLists.txt", "millrace_library(millrace_base DEPS millrace_metrics)\n",
     "links metrics/"),
    ("server/metrics/a.cc", "std::this_thread::sleep_for(1s);\n", "'sleep_for'"),
    ("server/base/clock.cc", "auto now = std::chrono::steady_clock::now();\n", ""),
    ("server/base/timer.cc", "auto now = std::chrono::steady_clock::now();\n", "steady_clock::now"),
    ("server/base/a.h", "mutable std::mutex mutex_;\n", "'std::mutex'"),
    ("server/base/a.cc", "std::thread thread(run);\n", "'std::thread'"),
    ("server/base/a.cc", 'std::cout << "hello";\n', "'std::cout'"),
    ("server/extra/a.h", "#pragma once\n", "extra/ has no row"),
    ("client/a.cc", '#include "server/base/b.h"\n', "client/ may not include base/"),
    ("server/base/a.cc", "#include <jpeglib.h>\n", "may not include libjpeg-turbo"),
    ("server/base/a.cc", "#include <libexif/exif-data.h>\n", "may not include libexif"),
    ("client/a.cc", "#include <libavutil/avutil.h>\n", "client/ may not include libav"),
]


def self_test() -> None:
    """Stops the program unless each planted fault is found, and nothing else."""
    for path, content, expected in SELF_TESTS:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for name in ("server/base", "server/metrics", "server/config", "client"):
                (root / name).mkdir(parents=True)
                (root / name / "README.md").touch()
            (root / "server/README.md").write_text(SELF_TEST_MAP, encoding="utf-8")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content, encoding="utf-8")
            found = check_tree(root)
        if len(found) != bool(expected) or expected not in "".join(found):
            sys.exit(f"self-test: {path} with {content!r}: expected {expected!r}, found {found}")
    upwards = read_map(SELF_TEST_MAP.replace("| base | – |", "| base | metrics |"))
    if not any("points to a lower level" in line for line in check_map(set(upwards), upwards)):
        sys.exit("self-test: a cycle in the map was not found")


def main() -> None:
    self_test()
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2])
    found = check_tree(root)
    print("\n".join(found))
    if found:
        sys.exit(f"{len(found)} places where the code and the map in server/README.md disagree.")
    print("The code agrees with the map in server/README.md.")


if __name__ == "__main__":
    main()
