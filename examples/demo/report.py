# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What the demo prints: for people, or as lines of JSON."""

import dataclasses
import json
from typing import Dict, List

from frame_stream import Answer
from picture_folder import Mapped


@dataclasses.dataclass(frozen=True)
class Summary:
    """How the demo went; times are medians over the streams' frames. All went well where there are
    no faults."""

    frames: int
    expected_frames: int
    streams: int
    seconds: float
    frames_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    jpeg_bytes: float  # Of a frame; its pixels are so many:
    raw_bytes: int
    transform_wait_ms: float
    decode_ms: float
    resize_ms: float
    inference_ms: float  # Of a batch.
    mean_batch_size: float
    order_verified: bool
    frames_of_replica: Dict[int, int]
    killed_pid: int
    replica_restarts: int
    folder: Mapped
    records: str
    contact_sheet: str
    server_log: str
    faults: List[str]


class TextReport:
    """One line for each frame, as it is answered, between a heading and a summary."""

    def start(self, video: str, streams: int, frames: int, window: int, plan: List[str]) -> None:
        print(f"{streams} streams of {frames} frames each from {video}, {window} frames of each "
              f"under way.\nThe server's plan:\n")
        print("\n".join("  " + line for line in plan))
        print("\nWhere the three surest pedestrians are (left, top), and the detector's score:\n",
              flush=True)

    def answer(self, answer: Answer) -> None:
        people = len(answer.detections)
        best = "  ".join(f"{d.box[0]},{d.box[1]} ({d.score:.1f})" for d in answer.detections[:3])
        print(f"stream {answer.stream}  frame {answer.frame.index:>4} "
              f"{people:>2} pedestrian{'s' if people != 1 else ' '}  {best:<43} "
              f"{1000 * answer.latency:5.0f} ms  replica {answer.replica}, batch of "
              f"{answer.batch_size}", flush=True)

    def killed(self, pid: int, answered: int) -> None:
        print(f"\n--- killed a replica, process {pid}, by SIGKILL after {answered} answers\n",
              flush=True)

    def maps(self, folder: str, pictures: int) -> None:
        print(f"\n--- runs `millrace map` over {folder}, {pictures} pictures", flush=True)

    def summary(self, s: Summary) -> None:
        ran = ", ".join(f"{n} by replica {r}" for r, n in sorted(s.frames_of_replica.items()))
        once = "every frame was answered once, in the order of its stream"
        print(f"\nframes         {s.frames} of {s.expected_frames} on {s.streams} streams in "
              f"{s.seconds:.1f} s: {s.frames_per_second:.1f} frames/s\n"
              f"latency        p50 {s.latency_p50_ms:.0f} ms, p99 {s.latency_p99_ms:.0f} ms\n"
              f"on the wire    {s.jpeg_bytes / 1000:.0f} kB per frame as JPEG, of "
              f"{s.raw_bytes / 1000:,.0f} kB of pixels\n"
              f"transform      median wait {s.transform_wait_ms:.2f} ms, decode "
              f"{s.decode_ms:.2f} ms, resize {s.resize_ms:.2f} ms\n"
              f"inference      median {s.inference_ms:.0f} ms of a batch, of "
              f"{s.mean_batch_size:.2f} frames on average\n"
              f"order          {'verified: ' + once if s.order_verified else 'VIOLATED'}\n"
              f"replicas       {ran}\n"
              f"killed         process {s.killed_pid}; replicas restarted: {s.replica_restarts}\n"
              f"folder         {s.folder.pictures} of {s.folder.expected_pictures} pictures in "
              f"{s.folder.seconds:.1f} s: {s.folder.pedestrians} pedestrians; median decode "
              f"{s.folder.decode_ms:.2f} ms, inference {s.folder.inference_ms:.0f} ms\n"
              f"records        {s.records}\n"
              f"contact sheet  {s.contact_sheet}\n"
              f"server's log   {s.server_log}", flush=True)


class JsonReport:
    """One JSON object per line; its `event` is start, frame, kill, map or summary."""

    def start(self, video: str, streams: int, frames: int, window: int, plan: List[str]) -> None:
        self._print("start", video=video, streams=streams, frames=frames, window=window, plan=plan)

    def answer(self, answer: Answer) -> None:
        self._print("frame", stream=answer.stream, number=answer.number, frame=answer.frame.index,
                    time=round(answer.frame.seconds, 3),
                    detections=[{"box": d.box, "score": round(d.score, 3)}
                                for d in answer.detections],
                    latency_ms=round(1000 * answer.latency, 1), replica=answer.replica,
                    batch_size=answer.batch_size)

    def killed(self, pid: int, answered: int) -> None:
        self._print("kill", pid=pid, answered=answered)

    def maps(self, folder: str, pictures: int) -> None:
        self._print("map", folder=folder, pictures=pictures)

    def summary(self, s: Summary) -> None:
        self._print("summary", **dataclasses.asdict(s))

    def _print(self, event: str, **fields) -> None:
        print(json.dumps({"event": event, **fields}), flush=True)
