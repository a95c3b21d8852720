# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Maps the model over a folder of pictures, with the `millrace` command line."""

import dataclasses
import json
import pathlib
import shutil
import statistics
import subprocess
import time

from demo_server import PATIENCE, ServerError
from frame_stream import MODEL, as_jpeg, count_frames, read_frames


@dataclasses.dataclass(frozen=True)
class Mapped:
    """What came of a folder."""

    pictures: int  # That have an answer.
    expected_pictures: int
    seconds: float
    pedestrians: int
    decode_ms: float  # The median over the pictures,
    inference_ms: float  # and of their batches.


def write_pictures(video: pathlib.Path, folder: pathlib.Path, count: int) -> None:
    """Fills the folder with frames from all over the video, as JPEG files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    step = max(1, count_frames(video) // count)
    for frame in read_frames(video, 0, count * step):
        if frame.index % step == 0:
            (folder / f"{frame.index:05}.jpg").write_bytes(as_jpeg(frame))


def map_folder(program: pathlib.Path, url: str, folder: pathlib.Path,
               records: pathlib.Path) -> Mapped:
    """Writes a record for each picture of the folder, and returns what they say."""
    command = [program, "map", folder, "--url", url, "--model", MODEL, "--want", "count",
               "--output", records, "--overwrite"]
    begin = time.monotonic()
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise ServerError(f"millrace map has not ended after {PATIENCE} s") from None
    seconds = time.monotonic() - begin
    if done.returncode not in (0, 3):  # 3: some have failed, and have records that say so.
        raise ServerError(f"millrace map returned {done.returncode}: {done.stderr}")
    found = [record for record in map(json.loads, records.read_text().splitlines())
             if "error" not in record]

    def median_ms(timing: str) -> float:
        return statistics.median([each["timings"][timing] for each in found] or [0]) / 1000

    return Mapped(
        pictures=len(found), expected_pictures=len(list(folder.iterdir())), seconds=seconds,
        pedestrians=sum(each["outputs"][0]["data"][0] for each in found),
        decode_ms=median_ms("transform_us"), inference_ms=median_ms("execute_us"))
