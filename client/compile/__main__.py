# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""`millrace compile`: builds a model's variants, checks and measures them, and keeps the fastest."""

import argparse
import importlib.util
import json
import math
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time
from typing import Dict, List, Optional, Sequence

from .cache import Cache, default_folder, key_of, parse_size
from .processes import ProcessTrouble
from .report import outcomes_json, table
from .repository import ModelFolder
from .tensors import UsageError, parse_input
from .variants import DEFAULT_VARIANTS, Outcome, Variant, choose, choose_isa, parse_variants

SUCCESS, BAD_ARGUMENTS, NOTHING_KEPT, INTERRUPTED = 0, 1, 3, 130
# Of the budget so much is left for measuring, and at least so many seconds.
MEASURING, LEAST_MEASURING = 0.15, 10.0
# A package is slower than TorchScript where it is so by more than what measuring is off.
SLOWER = 0.95

EXAMPLES = """\
examples:
  millrace compile my_package.nets:make_classifier --input 3x224x224:FP32 --into models/classifier
  millrace compile nets:Encoder --input ids=128:INT64 --input mask=128:INT64 --max-batch-size 16
  millrace compile program.pt2 --output model.pt2 --isa avx2 --samples rows.npz

Each variant is compiled within the budget, checked against the original on every size of batch, and
measured beside TorchScript of the same module. The fastest that agrees is kept. The exit code is 0
when one was, 3 when none was, 1 for what can't be compiled.
"""


def read_arguments(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = Parser(prog="millrace compile", epilog=EXAMPLES, description=(
        "Compile a PyTorch model into an AOTInductor package, which is served without Python"),
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL",
                        help="package.module:factory, which returns the torch.nn.Module, or a file "
                             "that torch.export.save wrote")
    parser.add_argument("-i", "--input", action="append", default=[], metavar="[NAME=]SHAPE:TYPE",
                        help="an input of a module, without the batch dimension, such as "
                             "3x224x224:FP32; one for each, in forward()'s order or by name")
    parser.add_argument("--max-batch-size", type=whole(0), metavar="N",
                        help="the most rows of a batch; 0: there is no batch dimension. Default: "
                             "what the model's config.pbtxt or the program says, else 8")
    parser.add_argument("--into", type=pathlib.Path, metavar="models/NAME",
                        help="add it as the next version to this model of a repository, with a "
                             "config.pbtxt where there is none")
    parser.add_argument("-o", "--output", type=pathlib.Path, metavar="FILE.pt2",
                        help="write it to this file")
    parser.add_argument("--variants", default=DEFAULT_VARIANTS, metavar="LIST",
                        help="what is tried: plain, or any of frozen, autotune and bf16 joined by "
                             f"+; default: {DEFAULT_VARIANTS}")
    parser.add_argument("--threads", type=whole(1), default=1, metavar="N",
                        help="threads of a replica, which are compiled in; default: 1, as a "
                             "server's replicas have")
    parser.add_argument("--isa", metavar="NAME",
                        help="instruction set: avx2, avx512, avx512_vnni, amx_tile; default: the "
                             "best that this machine has")
    parser.add_argument("--samples", type=pathlib.Path, metavar="FILE.npz",
                        help="inputs to check and measure with, an array for each; default: random "
                             "ones")
    parser.add_argument("--tolerance", type=tolerance, metavar="X",
                        help="how far an output may be from the original's, as a part of its "
                             "largest value; default: by its type, FP32 0.001")
    parser.add_argument("--budget", type=duration, default=600.0, metavar="TIME",
                        help="how long it may all take, such as 90s or 10m; default: 10m")
    parser.add_argument("--even-if-slower", action="store_true",
                        help="keep the best package though TorchScript is faster")
    parser.add_argument("--cache-limit", type=size, default=4 << 30, metavar="SIZE",
                        help="the most that compiled packages may take in "
                             "$XDG_CACHE_HOME/millrace, such as 512M; default: 4G")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    return parser.parse_args(with_values(sys.argv[1:] if arguments is None else arguments))


def with_values(arguments: Sequence[str]) -> List[str]:
    """Joins --input and what follows, which may begin with a minus: a shape of -1x80."""
    joined: List[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("-i", "--input"):
            joined[-1] = f"--input={argument}"
        else:
            joined.append(argument)
    return joined


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UsageError(f"{message}; see millrace compile --help")


def whole(least: int):
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,6}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}' came, expected a number of {least} or more")
        return int(text)
    return parse


def duration(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})(s|m|h)", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"'{text}' came, expected a time such as 90s, 10m or 1h")
    return int(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def size(text: str) -> int:
    if (found := parse_size(text)) is None:
        raise argparse.ArgumentTypeError(f"'{text}' came, expected a size such as 512M or 4G")
    return found


def tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' came, expected a number of 0 or more")
    return value


def check_tools() -> str:
    """The compiler; raises where it or torch is missing."""
    if not importlib.util.find_spec("torch"):
        raise UsageError(f"the Python {sys.executable} has no torch, which compiling takes; name "
                         "one that has in MILLRACE_PYTHON, or run ./dev setup where Millrace was built")
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise UsageError(f"there is no C++ compiler '{compiler}', which AOTInductor takes to make "
                         "a package; install g++, or name another in CXX")
    return compiler


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Run:
    """One model's variants, from its source to what is kept."""

    def __init__(self, options: argparse.Namespace, compiler: str, scratch: pathlib.Path):
        self._options = options
        self._compiler = compiler
        self._scratch = scratch
        self._end = time.monotonic() + options.budget
        self._cache = Cache(default_folder(), options.cache_limit)
        self._folder = ModelFolder(options.into) if options.into else None

    def run(self) -> int:
        from . import samples, source
        from .measurement import Bench

        options = self._options
        variants = parse_variants(options.variants)
        inputs = [parse_input(text) for text in options.input]
        if options.output and options.output.suffix != ".pt2":
            raise UsageError(f"--output {options.output}: expected a name that ends in .pt2")
        isa = choose_isa(options.isa, self._isas())
        batch = options.max_batch_size
        if batch is None and self._folder:
            batch = self._folder.max_batch_size()
        loaded = source.load(options.model, inputs, batch)
        if self._folder:
            self._folder.check(loaded.signature)
        batches = samples.batches(loaded, options.samples)
        packages: Dict[str, pathlib.Path] = {}
        outcomes = [Outcome(str(variant), variant) for variant in variants]
        for outcome in outcomes:
            if package := self._build(outcome, loaded, isa):
                packages[outcome.name] = package
        rival = None
        with Bench(loaded, batches, options.threads, self._scratch) as bench:
            for outcome in outcomes:
                if not outcome.trouble:
                    bench.add_variant(outcome, packages[outcome.name], options.tolerance)
            if not all(outcome.trouble for outcome in outcomes):
                rival = bench.add_rival()
                tell(f"measuring beside {rival.name}")
                bench.measure(rival)
        kept = choose(outcomes)
        report = {"model": options.model, "isa": isa, "threads": options.threads,
                  **outcomes_json(rival, outcomes), "kept": kept.name if kept else None,
                  "speedup": kept.speedup if kept else None, "written": [], "notes": []}
        if not options.json:
            print(table(rival, outcomes, kept))
        slower = kept is not None and kept.speedup < SLOWER
        if kept and (not slower or options.even_if_slower):
            config = loaded.signature.config_text(options.threads)
            report["written"], report["notes"] = self._write(packages[kept.name], config)
        if options.json:
            print(json.dumps(report, indent=1))
        for line in report["notes"]:
            tell(line)
        if kept is None:
            tell("millrace compile: nothing is kept, since no variant was compiled and agrees with "
                 "the original")
        elif slower and not report["written"]:
            tell(f"millrace compile: nothing is kept, since {rival.name} is faster; serve that, or "
                 "say --even-if-slower")
        return SUCCESS if kept and (not slower or options.even_if_slower) else NOTHING_KEPT

    def _isas(self) -> List[str]:
        import platform

        from torch._inductor import cpu_vec_isa
        if platform.machine() == "x86_64":
            found = cpu_vec_isa.x86_isa_checker()[::-1]
        else:
            found = [str(isa) for isa in cpu_vec_isa.valid_vec_isa_list()]
        if not found:
            raise UsageError("AOTInductor writes code for no instruction set of this machine's "
                             "CPU; it takes AVX2 or better, or Arm's ASIMD")
        return found

    def _build(self, outcome: Outcome, loaded, isa: str) -> Optional[pathlib.Path]:
        """The variant's package, from the cache or the compiler; None, and the outcome says why."""
        import torch

        from .processes import build
        variant: Variant = outcome.variant
        package = self._scratch / f"{variant}.pt2"
        settings = variant.settings(self._options.threads)
        try:
            made_of = loaded.in_bf16() if variant.bf16 else loaded
            key = key_of(made_of.digest(), torch.__version__, isa, sorted(settings.items()),
                         compiler_version(self._compiler))
            outcome.cached = self._cache.take(key, package)
            if outcome.cached:
                tell(f"{variant} was compiled before")
            else:
                self._compile(outcome, made_of, package, isa, settings, build)
                try:
                    self._cache.put(key, package)
                except OSError as error:
                    tell(f"{variant} can't be kept for another run: {error}")
            outcome.file_mib = package.stat().st_size / (1 << 20)
            return package
        except (UsageError, ProcessTrouble) as trouble:
            outcome.trouble = str(trouble)
            tell(f"{variant}: {trouble}")
            return None

    def _compile(self, outcome: Outcome, made_of, package: pathlib.Path, isa: str, settings,
                 build) -> None:
        import torch
        tell(f"compiling {outcome.name} for {isa}")
        program = package.with_name(f"program-{outcome.name}.pt2")
        torch.export.save(made_of.program, program)
        left = self._end - time.monotonic()
        left -= max(MEASURING * self._options.budget, min(LEAST_MEASURING, self._options.budget / 2))
        built = build(program, package, isa, settings, package.with_suffix(".log"), max(left, 0.0))
        outcome.build_seconds, outcome.build_mib = built.seconds, built.mib

    def _write(self, package: pathlib.Path, config: str):
        written, notes = [], []
        if self._options.output:
            aside = self._options.output.with_name(f".{self._options.output.name}")
            shutil.copyfile(package, aside)
            os.rename(aside, self._options.output)
            written.append(str(self._options.output))
        if self._folder:
            version, path = self._folder.add(package, config)
            written.append(str(path))
            notes = self._folder.notes(version)
        for path in written:
            tell(f"wrote {path}")
        return written, notes


def compiler_version(compiler: str) -> str:
    import subprocess
    return subprocess.run([compiler, "--version"], capture_output=True, text=True,
                          check=False).stdout.partition("\n")[0]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):  # So that what it has started ends, too.
        signal.signal(number, lambda came, _: sys.exit(128 + came))
    try:
        options = read_arguments(arguments)
        compiler = check_tools()
        with tempfile.TemporaryDirectory(prefix="millrace-compile-") as scratch:
            # What Inductor writes on its way goes with the run, unless the user keeps it somewhere.
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(pathlib.Path(scratch, "inductor")))
            return Run(options, compiler, pathlib.Path(scratch)).run()
    except (UsageError, ProcessTrouble, OSError) as error:
        tell(f"millrace compile: {error}")
        return BAD_ARGUMENTS
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
