# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Draws what was found into pictures, and puts them side by side into one."""

import pathlib
from typing import List

import cv2
import numpy
from frame_stream import HEIGHT, WIDTH, Answer

TILE = (WIDTH // 2, HEIGHT // 2)
YELLOW, BLACK = (0, 220, 255), (0, 0, 0)


def draw(answer: Answer) -> numpy.ndarray:
    """Returns the answer's frame with its boxes and a caption, at the size of a tile."""
    picture = answer.frame.picture.copy()
    for detection in answer.detections:
        left, top, right, bottom = detection.box
        cv2.rectangle(picture, (left, top), (right, bottom), YELLOW, 3)
    tile = cv2.resize(picture, TILE, interpolation=cv2.INTER_AREA)
    for detection in answer.detections:
        left, top = (edge // 2 for edge in detection.box[:2])
        write(tile, f"{detection.score:.1f}", (left, max(top - 3, 9)), 0.38)
    people = len(answer.detections)
    caption = (f"stream {answer.stream}  frame {answer.frame.index}  "
               f"{people} pedestrian{'s' if people != 1 else ''}  replica {answer.replica}")
    cv2.rectangle(tile, (0, TILE[1] - 18), TILE, BLACK, cv2.FILLED)
    write(tile, caption, (6, TILE[1] - 5), 0.42)
    return tile


def write(picture: numpy.ndarray, text: str, where, size: float) -> None:
    for color, thickness in ((BLACK, 3), (YELLOW, 1)):
        cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, size, color, thickness,
                    cv2.LINE_AA)


def write_contact_sheet(rows: List[List[Answer]], file: pathlib.Path) -> None:
    """Writes the answers as a picture, a row for each list; the lists may differ in length."""
    width = max(map(len, rows))
    blank = numpy.zeros((TILE[1], TILE[0], 3), numpy.uint8)
    tiles = [[draw(answer) for answer in row] + [blank] * (width - len(row)) for row in rows]
    sheet = cv2.vconcat([cv2.hconcat(row) for row in tiles])
    if not cv2.imwrite(str(file), sheet):
        raise SystemExit(f"{file}: can't be written")
