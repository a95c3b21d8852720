#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A model over pictures, by a pool of Python processes: what `./dev bench pool` has to beat.

Each process has a model of its own and one thread; it decodes a picture with Pillow (at a fraction
of its size, where that does), letterboxes it and runs the model. imap() hands the results over in
the order of the pictures, which it deals one at a time: they take so long that nothing is saved by
dealing more, and the last ones end together.

Says `ready` once every process has loaded its model and run it, waits for a line on stdin, and
prints what it measured as a line of JSON; then it waits for the end of stdin, so that its memory
can be looked at.
"""

import argparse
import functools
import json
import multiprocessing
import pathlib
import signal
import sys
import time

import numpy as np
import torch
from transform import row_of

model = None  # In each process of the pool.


def prepare(path: str, side: int, rows: int, optimised: bool, all_ready) -> None:
    """Loads the model, and runs it as often as TorchScript takes to settle."""
    global model
    torch.set_num_threads(1)
    model = torch.jit.load(path).eval()
    if optimised:
        model = torch.jit.optimize_for_inference(torch.jit.freeze(model))
    with torch.inference_mode():
        for _ in range(5):
            model(torch.zeros(rows, 3, side, side))
    all_ready.wait()


def run(paths, side: int):
    """Returns the pictures' outputs, and the seconds that one took to transform and to infer."""
    begin = time.perf_counter()
    rows = np.stack([row_of(path.read_bytes(), side, draft=True) for path in paths])
    transformed = time.perf_counter()
    with torch.inference_mode():
        outputs = model(torch.from_numpy(rows)).numpy()
    end = time.perf_counter()
    return outputs, (transformed - begin) / len(paths), (end - transformed) / len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a TorchScript file")
    parser.add_argument("list", type=pathlib.Path, help="a file with a picture's path on each line")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--start", choices=["fork", "spawn"], default="fork")
    parser.add_argument("--rows", type=int, default=1, help="pictures in a batch")
    parser.add_argument("--side", type=int, default=224, help="of the model's input")
    parser.add_argument("--as-loaded", action="store_true",
                        help="neither freeze nor optimise the model")
    parser.add_argument("--outputs", help="where to save the model's outputs, as .npy")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # Ends the pool's processes, too.
    paths = [pathlib.Path(line) for line in arguments.list.read_text().splitlines()]
    batches = [paths[i:i + arguments.rows] for i in range(0, len(paths), arguments.rows)]
    context = multiprocessing.get_context(arguments.start)
    all_ready = context.Barrier(arguments.processes + 1)
    with context.Pool(arguments.processes, prepare,
                      (arguments.model, arguments.side, arguments.rows, not arguments.as_loaded,
                       all_ready)) as pool:
        all_ready.wait()
        print("ready", flush=True)
        sys.stdin.readline()
        begin = time.perf_counter()
        results = list(pool.imap(functools.partial(run, side=arguments.side), batches))
        seconds = time.perf_counter() - begin
        if arguments.outputs:
            np.save(arguments.outputs, np.concatenate([outputs for outputs, _, _ in results]))
        print(json.dumps({"seconds": seconds, **{
            name: [1e3 * result[index] for result, batch in zip(results, batches) for _ in batch]
            for index, name in ((1, "transform_ms"), (2, "inference_ms"))}}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
