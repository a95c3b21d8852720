# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Draws what `./dev bench pool` found, by the size of the pool."""

import collections
import json
import pathlib
import sys
from typing import Dict, List, Sequence, Tuple

from programs import REPOSITORY

sys.path.append(str(REPOSITORY / "tests/simulation"))
from plot import draw_lines, dress, pyplot  # noqa: E402

Series = Dict[str, List[Tuple[int, float]]]


def lines(settings: Sequence[Dict], cores: int, of: str) -> Series:
    """Of each setting that was measured with pools of several sizes: a figure by the size."""
    found: Series = collections.defaultdict(list)
    for setting in settings:
        if setting["cores"] == cores:
            found[setting["name"]].append((setting["pool"], setting[of]))
    return {name: sorted(points) for name, points in found.items() if len(points) > 1}


def draw(figures: pathlib.Path, folder: pathlib.Path) -> List[pathlib.Path]:
    """Writes two plots of a run's figures into the folder and returns their paths."""
    run = json.loads(figures.read_text())
    cores = max(setting["cores"] for setting in run["settings"])

    def panel(axes, title: str, y: str, of: str) -> None:
        series = lines(run["settings"], cores, of)
        draw_lines(axes, series)
        axes.set_xscale("log", base=2)
        sizes = sorted({size for points in series.values() for size, _ in points})
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.minorticks_off()
        dress(axes, title, "replicas, or processes", y, legend=bool(series))

    whole, axes = pyplot.subplots(figsize=(6, 3.6))
    panel(axes, f"{run['images']:,} pictures on {cores} cores", "total time (s)", "seconds")
    stages, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    panel(left, "Transform", "median per picture (ms)", "transform_ms")
    panel(right, "Inference", "median per picture (ms)", "inference_ms")
    plots = []
    for name, figure in (("pool-time", whole), ("pool-stages", stages)):
        figure.tight_layout()
        plots.append(folder / f"{name}.png")
        figure.savefig(plots[-1], dpi=90, metadata={"Software": None})
        pyplot.close(figure)
    return plots
