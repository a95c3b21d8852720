# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that no answer is lost, doubled or out of order, and counts what there is to count."""

import collections
import statistics
from typing import Dict, List

import numpy
from frame_stream import Answer, StreamEnd


class Tally:
    """Expects `frames` answers from each of `streams` streams, in the order of the frames."""

    def __init__(self, streams: int, frames: int, samples: int):
        """Keeps about `samples` answers of each stream, evenly spaced."""
        self.expected = streams * frames
        self.answered = 0
        self.faults: List[str] = []
        self.samples: List[List[Answer]] = [[] for _ in range(streams)]
        self.frames_of_replica: Dict[int, int] = collections.Counter()
        self.open_streams = streams
        self._frames = frames
        self._next = [0] * streams
        self._answers: Dict[str, List[float]] = collections.defaultdict(list)
        samples = min(samples, frames)
        self._sampled = {frames * (2 * i + 1) // (2 * samples) for i in range(samples)}

    def add(self, answer: Answer) -> None:
        due = self._next[answer.stream]
        if answer.number != due:
            self.faults.append(f"stream {answer.stream}: the answer to frame number "
                               f"{answer.number} came where that to number {due} was due")
        self._next[answer.stream] = due + 1
        self.answered += 1
        self.frames_of_replica[answer.replica] += 1
        for name in ("latency", "sent_bytes", "decode_ms", "resize_ms", "inference_ms"):
            self._answers[name].append(getattr(answer, name))
        if answer.number in self._sampled:
            self.samples[answer.stream].append(answer)

    def end(self, end: StreamEnd) -> None:
        self.open_streams -= 1
        if end.error:
            self.faults.append(f"stream {end.stream} ended early: {end.error}")
        if self._next[end.stream] != self._frames:
            self.faults.append(f"stream {end.stream}: {self._next[end.stream]} answers to "
                               f"{self._frames} frames")

    def latency_ms(self, percentile: float) -> float:
        return 1000 * float(numpy.percentile(self._answers["latency"] or [0.0], percentile))

    def median(self, name: str) -> float:
        """Of a number that every answer has."""
        return statistics.median(self._answers[name] or [0.0])
