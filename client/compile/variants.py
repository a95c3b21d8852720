# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""In which ways a model is compiled, and which of them is kept."""

import dataclasses
import math
from typing import Any, Dict, FrozenSet, List, Optional, Sequence

from .tensors import UsageError

# What may be joined by +: what it is, and Inductor's settings for it.
OPTIONS: Dict[str, Dict[str, Any]] = {
    "frozen": {"freezing": True},
    "autotune": {"max_autotune": True},
    "bf16": {},
}
DEFAULT_VARIANTS = "plain,frozen,frozen+autotune"

# The instruction sets of x86 that Inductor writes code for, from the least on, with the level of
# g++'s -march that has no more than what a server makes sure of.
X86_LEVELS = {"avx2": "x86-64-v3", "avx512": "x86-64-v4", "avx512_vnni": "x86-64-v4",
              "amx_tile": "x86-64-v4"}

# How far an output may be from the original's, as a part of its largest value.
TOLERANCES = {"FP64": 1e-7, "FP32": 1e-3, "FP16": 1e-2, "BF16": 5e-2}


@dataclasses.dataclass(frozen=True)
class Variant:
    options: FrozenSet[str]  # Of OPTIONS.

    def __str__(self) -> str:
        return "+".join(name for name in OPTIONS if name in self.options) or "plain"

    @property
    def bf16(self) -> bool:
        return "bf16" in self.options

    def settings(self, threads: int) -> Dict[str, Any]:
        """Inductor's. A package has its number of threads compiled in; batches of one row are let
        through its own checks, since it runs them."""
        settings: Dict[str, Any] = {"cpp.threads": threads, "aot_inductor.check_lowerbound": False}
        for name in sorted(self.options):
            settings |= OPTIONS[name]
        return settings


def parse_variants(text: str) -> List[Variant]:
    """Reads `plain,frozen+autotune`; each variant once."""
    variants = []
    for name in text.split(","):
        options = frozenset(name.split("+")) - {"plain"}
        if not name or (unknown := sorted(options - set(OPTIONS))):
            raise UsageError(f"--variants: '{unknown[0] if name else ''}' is no variant; expected "
                             f"plain, or any of {', '.join(OPTIONS)} joined by +, with commas "
                             f"between, such as {DEFAULT_VARIANTS}")
        if Variant(options) not in variants:
            variants.append(Variant(options))
    return variants


def choose_isa(wanted: Optional[str], available: Sequence[str]) -> str:
    """Which of the instruction sets, from the best on, is compiled for. One that this machine
    lacks would be compiled, but neither run nor checked here."""
    if wanted is None:
        return available[0]
    if wanted not in available:
        raise UsageError(f"--isa {wanted}: " + (
            "this machine lacks it, so what is compiled for it could not be checked here; run this "
            "on a machine that has it" if wanted in X86_LEVELS else "no such instruction set is known") +
            f". Here it may be {' or '.join(available)}")
    return wanted


@dataclasses.dataclass
class Outcome:
    """What became of a variant, or of the TorchScript module that it is compared with."""

    name: str
    variant: Optional[Variant] = None  # None: TorchScript.
    trouble: str = ""  # Why it isn't in the running; else:
    error: float = math.nan  # How far it is from the original, as a part of the largest value.
    milliseconds: Dict[int, float] = dataclasses.field(default_factory=dict)  # By batch size.
    ratios: Dict[int, float] = dataclasses.field(default_factory=dict)  # TorchScript's time to it.
    memory_mib: float = math.nan  # What loading and running it adds to a process.
    file_mib: float = math.nan
    build_seconds: float = math.nan
    build_mib: float = math.nan  # The most memory that a process of the compiler had.
    cached: bool = False

    @property
    def speedup(self) -> float:
        """Over TorchScript: the geometric mean over the batch sizes."""
        return math.exp(sum(map(math.log, self.ratios.values())) / len(self.ratios))


def choose(outcomes: Sequence[Outcome]) -> Optional[Outcome]:
    """The fastest of the variants that agree with the original; None where none does."""
    able = [outcome for outcome in outcomes if outcome.variant and not outcome.trouble]
    return max(able, key=lambda outcome: outcome.speedup, default=None)
