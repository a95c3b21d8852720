#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What Pillow and NumPy take for what benchmark-transform measures, in the same minutes.

A JPEG is decoded, letterboxed, normalised to FP32 NCHW; one thread each, in turns. `draft` lets
Pillow decode at a fraction of the size, as Millrace does.
"""

import io
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

PROGRAM = Path(__file__).parents[2] / "build/benchmarks/benchmark-transform"
SIZES = (640, 480), (1280, 720), (1920, 1080)
SIDES = 224, 640


def row_of(file, side, draft):
    picture = Image.open(io.BytesIO(file))
    ratio = min(side / picture.width, side / picture.height)
    size = round(picture.width * ratio), round(picture.height * ratio)
    if draft:
        picture.draft("RGB", size)
    resized = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    row = np.full((side, side, 3), 114, np.uint8)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    row[top:top + size[1], left:left + size[0]] = resized
    return np.ascontiguousarray(row.transpose(2, 0, 1), np.float32) * np.float32(1 / 255)


def microseconds(function, seconds=0.3):
    """Returns the median time of a call, in CPU time."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times) < 5:
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return statistics.median(times) * 1e6


def ours(name):
    done = subprocess.run(
        [PROGRAM, f"--benchmark_filter=^{name}$", "--benchmark_format=json",
         "--benchmark_min_time=0.3"], capture_output=True, check=True)
    return json.loads(done.stdout)["benchmarks"][0]["cpu_time"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"{'JPEG':>10} {'row':>4} {'Millrace':>9} {'libjpeg alone':>14} {'Pillow':>8} {'draft':>8}"
          "   Millrace takes, of each")
    for width, height in SIZES:
        file = subprocess.run([PROGRAM, "--write", str(width), str(height)], capture_output=True,
                              check=True).stdout
        for side in SIDES:
            found = {"ours": [], "libjpeg": [], "pillow": [], "draft": []}
            for _ in range(rounds):
                found["ours"].append(ours(f"Transform/jpeg_to_row/{width}/{height}/{side}"))
                found["libjpeg"].append(ours(f"LibjpegAlone/{width}/{height}"))
                found["pillow"].append(microseconds(lambda: row_of(file, side, False)))
                found["draft"].append(microseconds(lambda: row_of(file, side, True)))
            figures = {name: statistics.median(values) for name, values in found.items()}
            ratios = [statistics.median(a / b for a, b in zip(found["ours"], found[name]))
                      for name in ("libjpeg", "pillow", "draft")]
            print(f"{width:>5}x{height:<4} {side:>4} {figures['ours']:>6.0f} us"
                  f" {figures['libjpeg']:>11.0f} us {figures['pillow']:>5.0f} us"
                  f" {figures['draft']:>5.0f} us   " + "  ".join(f"{r:.2f}" for r in ratios))


if __name__ == "__main__":
    main()
