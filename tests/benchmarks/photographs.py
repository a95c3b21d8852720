# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Makes pictures to measure with: JPEGs of 0.5 to 2 megapixels, out of a video and photographs.

A source that is smaller than its picture is continued by its mirror image, not enlarged, so that a
picture's pixels are as a camera saw them and cost as much to decode.
"""

import itertools
import pathlib
from typing import Iterator, List

import cv2
import numpy

SIZES = (960, 540), (1024, 768), (1280, 720), (1280, 960), (1600, 1200)  # Width, height.
QUALITY = 90
PHOTOGRAPH_EVERY = 4  # The others are frames.
PHOTOGRAPH_BYTES = 40_000  # At least; what is smaller is a logo or a chessboard.


def make_pictures(folder: pathlib.Path, count: int, video: pathlib.Path,
                  photographs: pathlib.Path) -> List[pathlib.Path]:
    """Returns so many pictures in `folder`, and makes them unless they are there."""
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    if all(path.exists() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    photos = itertools.cycle([cv2.imread(str(path)) for path in sorted(photographs.glob("*.jpg"))
                              if path.stat().st_size >= PHOTOGRAPH_BYTES])
    frames = endless_frames(video)
    for number, path in enumerate(paths):
        source = next(frames if number % PHOTOGRAPH_EVERY else photos)
        _, file = cv2.imencode(".jpg", cut_out(source, *SIZES[number % len(SIZES)], number),
                               [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(file.tobytes())
        unfinished.rename(path)
    return paths


def endless_frames(video: pathlib.Path) -> Iterator[numpy.ndarray]:
    while True:
        capture = cv2.VideoCapture(str(video))
        readable, frame = capture.read()
        if not readable:
            raise SystemExit(f"{video}: no frame can be read")
        while readable:
            yield frame
            readable, frame = capture.read()


def cut_out(source: numpy.ndarray, width: int, height: int, seed: int) -> numpy.ndarray:
    """Returns a part of the endless plane of the source and its mirror images."""
    random = numpy.random.default_rng(seed)

    def places(wanted: int, there: int) -> numpy.ndarray:
        place = (random.integers(2 * there) + numpy.arange(wanted)) % (2 * there)
        return numpy.minimum(place, 2 * there - 1 - place)

    return source[places(height, source.shape[0])][:, places(width, source.shape[1])]
