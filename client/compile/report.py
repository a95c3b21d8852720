# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What was found, as a table for people and as JSON for programs."""

import dataclasses
import math
from typing import Any, Dict, List, Optional, Sequence

from .variants import Outcome


def cell(value: float, suffix: str = "") -> str:
    if math.isnan(value):
        return "-"
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + suffix


def table(rival: Optional[Outcome], outcomes: Sequence[Outcome], kept: Optional[Outcome]) -> str:
    """TorchScript and the variants: milliseconds for each size of batch, with how many times as fast
    as TorchScript that is; the error is the largest difference from the original, as a part of the
    largest value."""
    lines = measured(rival, [each for each in outcomes if not each.trouble]) if rival else []
    lines += [f"{outcome.name}: not kept: {outcome.trouble}" for outcome in outcomes
              if outcome.trouble]
    if kept:
        lines.append(f"The fastest that agrees is {kept.name}: {kept.speedup:.2f} times as fast as "
                     f"{rival.name}, in the mean over the batches.")
    return "\n".join(lines)


def measured(rival: Outcome, outcomes: Sequence[Outcome]) -> List[str]:
    sizes = sorted(rival.milliseconds)
    rows = [["", "error", *(f"batch {size}" if size else "run" for size in sizes), "memory MiB",
             "file MiB", "compile s", "compile MiB"]]
    for outcome in (rival, *outcomes):
        times = [cell(outcome.milliseconds[size], " ms") +
                 ("" if outcome is rival else f" ({outcome.ratios[size]:.2f}x)") for size in sizes]
        built = "cached" if outcome.cached else cell(outcome.build_seconds)
        rows.append([outcome.name, f"{outcome.error:.1e}", *times, cell(outcome.memory_mib),
                     cell(outcome.file_mib), built, cell(outcome.build_mib)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in
                                                 zip(row[1:], widths[1:]))]) for row in rows]


def as_json(value: Any) -> Any:
    """What json.dumps takes: no NaN, and no infinity."""
    if isinstance(value, dict):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def outcome_json(outcome: Outcome) -> Dict[str, Any]:
    fields = dataclasses.asdict(outcome)
    fields.pop("variant")
    return as_json(fields)


def outcomes_json(rival: Optional[Outcome], outcomes: Sequence[Outcome]) -> Dict[str, Any]:
    variants: List[Dict[str, Any]] = [outcome_json(outcome) for outcome in outcomes]
    return {"rival": outcome_json(rival) if rival else None, "variants": variants}
