#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Draws what the simulator found: ./dev simulate --plot [DIR].

Called as plot.py JSON DIR. A picture whose figures are not in the file is left out and told so.
"""

import argparse
import collections
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

COLOURS = {
    "eager": "#1f77b4",
    "timer 0.5 ms": "#c7a76c",
    "timer 2 ms": "#8c6d31",
    "hold": "#d62728",
    "Millrace": "#d62728",
    "groups": "#d62728",
    "queue of 128 rows": "#d62728",
    "queue of 4,096 rows": "#1f77b4",
    "offered": "#bbbbbb",
    "earliest deadline first": "#555555",
    "head of line": "#555555",
}
DASHED = {"offered", "earliest deadline first", "head of line"}


def read_points(path):
    """The points as {plot: {series: [(x, y), …]}}, in the order in which they were found."""
    plots = collections.defaultdict(lambda: collections.defaultdict(list))
    for point in json.loads(path.read_text())["points"]:
        plots[point["plot"]][point["series"]].append((point["x"], point["y"]))
    return plots


def draw_lines(axes, series, marker="o"):
    for name, points in series.items():
        axes.plot(*zip(*points), label=name, color=COLOURS.get(name), marker=marker, markersize=3,
                  linewidth=1.5, linestyle="--" if name in DASHED else "-")


def dress(axes, title, x, y, legend=True):
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", linewidth=0.4, color="#dddddd")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=8)


def draw_bars(axes, groups, unit):
    """Bars side by side: groups is {label: {series: value}}."""
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = [group + (i - (len(names) - 1) / 2) * width for group in range(len(groups))]
        values = [bars.get(name, 0) for bars in groups.values()]
        drawn = axes.bar(places, values, width, label=name, color=COLOURS.get(name))
        axes.bar_label(drawn, fmt=unit, fontsize=6, padding=1)
    axes.set_xticks(range(len(groups)), list(groups), fontsize=7)


def load(plots):
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    draw_lines(left, plots["load: throughput"])
    dress(left, "Calls at random: throughput", "load / capacity", "answers per second")
    draw_lines(right, plots["load: p99"])
    dress(right, "Calls at random: latency", "load / capacity", "p99 latency (ms)")
    return figure


def fairness(plots):
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    queues = {name.removeprefix("fairness: "): series for name, series in plots.items()
              if name.startswith("fairness: ")}
    windows = [f"{x:.0f}" for x, _ in next(iter(queues.values()))["rows/s"]]
    draw_bars(left, {window: {queue: series["rows/s"][i][1] for queue, series in queues.items()}
                     for i, window in enumerate(windows)}, "")
    dress(left, "63 backlogged flows of equal weight", "the flow's window (requests)",
          "rows per second and flow")
    points = plots["weights"]["rows/s"]
    right.plot(*zip(*points), "o", color=COLOURS["Millrace"], label="served")
    share = sum(y for _, y in points) / sum(x for x, _ in points)
    right.plot([0, points[-1][0]], [0, share * points[-1][0]], "--", color="#555555",
               linewidth=1, label="in proportion to weight")
    dress(right, "20 backlogged flows of four weights", "the flow's weight",
          "rows per second and flow")
    return figure


def goodput(plots):
    figure, axes = pyplot.subplots(figsize=(5.5, 3.4))
    draw_lines(axes, plots["goodput"])
    most = max(y for name, points in plots["goodput"].items() if name != "offered"
               for _, y in points)
    dress(axes, "Calls with deadlines of 25 to 75 ms", "offered load / capacity",
          "answered in time, per second")
    axes.set_ylim(0, 1.4 * most)
    return figure


def hold(plots):
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9, 6))

    def groups(prefix):
        return {name.removeprefix(prefix).replace(", ", ",\n"):
                {series: points[0][1] for series, points in bars.items()}
                for name, bars in plots.items() if name.startswith(prefix)}

    draw_bars(upper, groups("hold: "), "%.2f")
    dress(upper, "When a batch goes: throughput", "", "throughput / eager's")
    draw_bars(lower, groups("hold p99: "), "%.0f")
    dress(lower, "When a batch goes: latency", "", "p99 latency (ms)")
    for axes in (upper, lower):
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper left")
    return figure


def deadlines(plots):
    figure, axes = pyplot.subplots(figsize=(5.5, 3.4))
    draw_lines(axes, plots["deadlines"])
    dress(axes, "Calls with deadlines of 12 to 60 ms", "load / capacity", "missed (%)")
    return figure


def shapes(plots):
    figure, axes = pyplot.subplots(figsize=(5.5, 3.4))
    draw_lines(axes, plots["shapes"])
    dress(axes, "Two shapes, one request in ten of the rarer", "load / capacity",
          "p99 latency of the rarer (ms)")
    ours = max(y for _, y in plots["shapes"]["groups"])
    axes.set_ylim(0, 5 * ours)  # The other has no steady state.
    return figure


# Which points a picture needs, by the beginning of their plots' names.
PICTURES = {
    load: ["load: throughput", "load: p99"],
    fairness: ["fairness: ", "weights"],
    goodput: ["goodput"],
    hold: ["hold: ", "hold p99: "],
    deadlines: ["deadlines"],
    shapes: ["shapes"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=pathlib.Path)
    parser.add_argument("dir", type=pathlib.Path)
    arguments = parser.parse_args()
    plots = read_points(arguments.json)
    arguments.dir.mkdir(parents=True, exist_ok=True)
    for picture, needs in PICTURES.items():
        path = arguments.dir / f"scheduling-{picture.__name__}.png"
        if not all(any(name.startswith(need) for name in plots) for need in needs):
            print(f"{path} is left out: the run has nothing for it", file=sys.stderr)
            continue
        figure = picture(plots)
        figure.tight_layout()
        # Without a date or a version: the same figures make the same file.
        figure.savefig(path, dpi=90, metadata={"Software": None})
        pyplot.close(figure)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
