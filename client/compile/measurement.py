# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Checks what was compiled against the original, and measures it beside TorchScript."""

import contextlib
import pathlib
import statistics
import warnings
from typing import Dict, List, Optional, Sequence, Tuple

import torch

from .processes import ProcessTrouble, Worker
from .samples import disagreement
from .source import Source
from .variants import Outcome

ROUNDS = 5
SLICE = 0.15  # Seconds of one measurement.


class Bench:
    """The batches of one model, what the original makes of them, and the processes that run what was
    compiled and what it is compared with: they end with the block."""

    def __init__(self, source: Source, batches: Sequence[Tuple[int, List[torch.Tensor]]],
                 threads: int, scratch: pathlib.Path):
        self._source = source
        self._names = [spec.name for spec in source.signature.outputs]
        self._threads = threads
        self._scratch = scratch
        self._stack = contextlib.ExitStack()
        self._workers: List[Tuple[Outcome, Worker]] = []
        self._inputs: Dict[int, pathlib.Path] = {}
        self._expected: Dict[int, List[torch.Tensor]] = {}
        for rows, inputs in batches:
            self._inputs[rows] = scratch / f"inputs-{rows}.pt"
            torch.save(inputs, self._inputs[rows])
            self._expected[rows] = source.run(inputs)
        self._traced = tuple(batches[-1][1])

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add_rival(self) -> Outcome:
        """TorchScript of the module: scripted, or traced where it can't be; or else the module as it
        was exported, run without a compiler. Each is tried at all sizes of batches."""
        path = self._scratch / "torchscript.pt"
        for make in (torch.jit.script, lambda module: torch.jit.trace(
                module, self._traced, check_trace=False, strict=False)):
            with contextlib.suppress(Exception), warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                make(self._source.module).save(str(path))
                rival = self._add(Outcome("torchscript"), "torchscript", path, None)
                if not rival.trouble:
                    return rival
                self._workers.pop()  # Tracing may have left out a branch.
        path = self._scratch / "exported.pt2"
        torch.export.save(self._source.program, path)
        return self._add(Outcome("uncompiled"), "exported", path, None)

    def add_variant(self, outcome: Outcome, package: pathlib.Path,
                    tolerance: Optional[float]) -> None:
        """Runs every batch. Whether it agrees goes into the outcome."""
        try:
            self._add(outcome, "package", package, tolerance)
        except ProcessTrouble as trouble:
            outcome.trouble = str(trouble)

    def measure(self, rival: Outcome) -> None:
        """Measures the rival and the variants that agree, in turn; a ratio, of the rival's time, is
        the median of the rounds' own."""
        able = [(outcome, worker) for outcome, worker in self._workers
                if outcome is rival or not outcome.trouble]
        for rows, inputs in self._inputs.items():
            took: Dict[str, List[float]] = {outcome.name: [] for outcome, _ in able}
            for turn in range(ROUNDS):
                for outcome, worker in able if turn % 2 == 0 else reversed(able):
                    if outcome.trouble and outcome is not rival:
                        continue
                    try:
                        took[outcome.name].append(worker.milliseconds(inputs, SLICE))
                    except ProcessTrouble as trouble:
                        if outcome is rival:
                            raise
                        outcome.trouble = str(trouble)
            able = [each for each in able if each[0] is rival or not each[0].trouble]
            for outcome, _ in able:
                outcome.milliseconds[rows] = statistics.median(took[outcome.name])
                outcome.ratios[rows] = statistics.median(
                    theirs / ours for theirs, ours in zip(took[rival.name], took[outcome.name]))
        for outcome, worker in able:
            outcome.memory_mib = worker.memory_mib()

    def _add(self, outcome: Outcome, kind: str, file: pathlib.Path,
             tolerance: Optional[float]) -> Outcome:
        """Raises ProcessTrouble where it doesn't run."""
        log = self._scratch / f"worker-{len(self._workers)}.log"
        worker = self._stack.enter_context(Worker(kind, file, self._threads, log))
        bf16 = outcome.variant is not None and outcome.variant.bf16
        outcome.error = 0.0
        for rows, inputs in self._inputs.items():
            into = self._scratch / "outputs.pt"
            worker.run(inputs, into)
            far, words = disagreement(torch.load(into), self._expected[rows], self._names, bf16,
                                      tolerance)
            outcome.error = max(outcome.error, far)
            if words and not outcome.trouble:
                outcome.trouble = (f"in a batch of {rows}, " if rows else "") + f"output {words}"
        self._workers.append((outcome, worker))
        return outcome
