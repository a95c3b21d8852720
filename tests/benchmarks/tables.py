# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks have in common: measuring in turn, ratios, and tables of them."""

import os
import pathlib
import platform
import re
import statistics
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Sequence, TypeVar

Measurement = TypeVar("Measurement")  # It has a field `stolen`.
# A measurement is repeated while the host takes more of the cores' time than this.
MOST_STOLEN = 0.1


@dataclass
class Table:
    title: str
    columns: Sequence[str]
    rows: List[Sequence[str]] = field(default_factory=list)

    def print(self) -> None:
        print(f"\n{self.title}\n\n{self}", flush=True)

    def __str__(self) -> str:
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows)]
        lines = []
        for cells in (self.columns, ["-" * width for width in widths], *self.rows):
            text = [cells[0].ljust(widths[0])]
            text += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
            lines.append("| " + " | ".join(text) + " |")
        return "\n".join(lines)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass
class Ratio:
    """Of two things measured in turn."""

    ours: List[float]
    theirs: List[float]

    @property
    def each(self) -> List[float]:
        return [a / b for a, b in zip(self.ours, self.theirs)]

    @property
    def median(self) -> float:
        return statistics.median(self.each)

    def cells(self) -> List[str]:
        each = self.each
        return [number(statistics.median(self.ours)), number(statistics.median(self.theirs)),
                f"{self.median:.2f}", f"{min(each):.2f}–{max(each):.2f}"]

    def json(self) -> Dict[str, object]:
        return {"ours": self.ours, "theirs": self.theirs, "ratio": self.median}


def goal_cells(ratio: float, goal: Optional[float]) -> List[str]:
    if goal is None:
        return ["", ""]
    return [f"≥ {goal}", "met" if ratio >= goal else "missed"]


def in_turn(rounds: int, *measures: Callable[[], float]) -> List[List[float]]:
    """Measures each in every round, in turn and the other way round; returns what each gave."""
    results: List[List[float]] = [[] for _ in measures]
    for turn in range(rounds):
        order = list(enumerate(measures))
        for index, measure in order if turn % 2 == 0 else reversed(order):
            results[index].append(measure())
    return results


def undisturbed(measure: Callable[[], Measurement], repeats: int) -> Measurement:
    """Returns what was measured with the least stolen, of as few attempts as it takes."""
    best = measure()
    for _ in range(repeats):
        if best.stolen <= MOST_STOLEN:
            break
        best = min(best, measure(), key=lambda found: found.stolen)
    return best


def print_machine(cpus: Sequence[int], rounds: int) -> None:
    print(f"{machine(cpus)}, load average {os.getloadavg()[0]:.1f}, {rounds} rounds")
    if os.getloadavg()[0] > 0.5 * len(cpus):
        print("The machine is busy with something else: expect a wide spread.")


def machine(cpus: Sequence[int]) -> str:
    try:
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        cpu = platform.machine()
    return f"{len(cpus)} cores of {cpu}, Linux {platform.release()}"
