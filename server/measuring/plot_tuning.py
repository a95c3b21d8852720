#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Draws what `millrace tune` has measured, from the file that its --json writes:

    plot_tuning.py REPORT.json PICTURE.png

For each model throughput against p99 of every plan, and throughput by threads of a replica, with
what lies beyond the cores dashed.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

COLOURS = pyplot.get_cmap("viridis")
BEST, BEYOND = "#d62728", "#999999"


def is_chosen(plan, chosen):
    return all(plan[key] == value for key, value in chosen.items())


def dress(axes, title, x, y):
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.grid(linewidth=0.4, color="#dddddd")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw_plans(axes, model, plans):
    widths = sorted({plan["threads"] for plan in plans})
    for plan in plans:
        if plan["oversubscribed"]:
            colour = BEYOND
        else:
            colour = COLOURS(widths.index(plan["threads"]) / len(widths))
        axes.plot(plan["p99_ms"], plan["rows_per_second"], "o", markersize=4, color=colour)
    for plan in plans:
        if is_chosen(plan, model["chosen"]):
            axes.plot(plan["p99_ms"], plan["rows_per_second"], "o", markersize=9,
                      markerfacecolor="none", color=BEST)
            axes.annotate(f"{plan['replicas']} x {plan['threads']}, batch {plan['batch']}",
                          (plan["p99_ms"], plan["rows_per_second"]), fontsize=7, color=BEST,
                          xytext=(6, -10), textcoords="offset points")
    axes.set_xscale("log")
    dress(axes, f"{model['model']} version {model['version']}: every plan", "p99 (ms)", "rows/s")


def draw_threads(axes, model, plans, cores):
    for replicas in sorted({plan["replicas"] for plan in plans}):
        best = {}
        for plan in plans:
            if plan["replicas"] == replicas:
                best[plan["threads"]] = max(best.get(plan["threads"], 0), plan["rows_per_second"])
        within = [(t, r) for t, r in sorted(best.items()) if replicas * t <= cores]
        beyond = [(t, r) for t, r in sorted(best.items()) if replicas * t > cores]
        label = f"{replicas} replica{'s' if replicas > 1 else ''}"
        [line] = axes.plot(*zip(*(within or beyond)), marker="o", markersize=4,
                           linestyle="-" if within else "--", label=label)
        if within and beyond:
            axes.plot(*zip(*(within[-1:] + beyond)), marker="o", markersize=4, linestyle="--",
                      color=line.get_color())
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({plan["threads"] for plan in plans}))
    axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.legend(frameon=False, fontsize=7)
    dress(axes, f"{cores} cores; dashed: more threads than cores", "threads of a replica",
          "rows/s, best batch")


def main(report_file, picture):
    report = json.loads(pathlib.Path(report_file).read_text())
    models = [model for model in report["models"] if "plans" in model]
    if not models:
        sys.exit(f"{report_file} has no model that was measured.")
    cores = -int(-report["cores"] // 1)  # A fraction of a core is one that can be busy.
    figure, grid = pyplot.subplots(len(models), 2, figsize=(9, 3.4 * len(models)), squeeze=False)
    for model, (left, right) in zip(models, grid):
        plans = [plan for plan in model["plans"] if plan.get("rows_per_second")]
        draw_plans(left, model, plans)
        draw_threads(right, model, plans, cores)
    figure.tight_layout()
    figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
