#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the demo's model: a pedestrian detector for 768x576 video, as a TorchScript module.

    python examples/demo/pedestrian_model.py --into models

writes models/pedestrians/config.pbtxt and models/pedestrians/1/model.pt; with --pictures clients
send JPEG, PNG or WebP files of any size instead of pixels. It is the classical
detector of Dalal and Triggs (CVPR 2005): histograms of oriented gradients under a linear SVM, with
the coefficients that OpenCV publishes (cv2.HOGDescriptor_getDefaultPeopleDetector). Written as
tensor operations it is a small convolutional network, so it takes batches and runs on any device:

    resize -> gradients -> 9 orientation planes -> 4 cell kernels -> normalise -> SVM kernel

and what follows it, non-maximum suppression, is part of the model too.
"""

import argparse
import math
import pathlib
from typing import List, Tuple

import cv2
import numpy
import torch
import torch.nn.functional as F

FRAME_HEIGHT, FRAME_WIDTH = 576, 768
# How far the frame is shrunk on each level of the pyramid. A window of 64x128 pixels holds a
# person about 96 pixels tall, so the levels find people of about 77, 96, 120 and 150 pixels.
SCALES = (0.8, 1.0, 1.25, 1.5625)
PADDING = 16  # Reflected pixels around each level, so that people at the frame's edge are found.
THRESHOLD = 0.5  # The least distance from the SVM's plane that counts as a pedestrian.
MAX_DETECTIONS = 64
MAX_CANDIDATES = 256  # The best windows of a frame; suppression looks at these only.
MAX_OVERLAP = 0.6  # Of two boxes that share more than this of the smaller, the better one stays.

WINDOW_HEIGHT, WINDOW_WIDTH = 128, 64
CELL = 8  # Also the stride of blocks and windows.
BLOCK = 2 * CELL
BINS = 9
BLOCKS_HIGH, BLOCKS_WIDE = WINDOW_HEIGHT // CELL - 1, WINDOW_WIDTH // CELL - 1

CONFIG = f"""\
# Finds pedestrians in video frames. Made by examples/demo/pedestrian_model.py.
name: "pedestrians"
platform: "pytorch_libtorch"
max_batch_size: 4
input [
  # Rows of pixels, RGB. (The detector treats the three channels alike: BGR does as well.)
  {{ name: "frames" data_type: TYPE_UINT8 dims: [ {FRAME_HEIGHT}, {FRAME_WIDTH}, 3 ] }}
]
output [
  # Left, top, right, bottom in pixels, best first; rows from `count` on are zero.
  {{ name: "boxes" data_type: TYPE_FP32 dims: [ {MAX_DETECTIONS}, 4 ] }},
  {{ name: "scores" data_type: TYPE_FP32 dims: [ {MAX_DETECTIONS} ] }},
  {{ name: "count" data_type: TYPE_INT32 dims: [ 1 ] }}
]
dynamic_batching {{ }}
"""
TRANSFORM = "millrace { transform { image { fit: LETTERBOX } } }\n"


def level_size(scale: float) -> Tuple[int, int]:
    """Returns the (height, width) of the frame on the level that is shrunk by `scale`."""
    return round(FRAME_HEIGHT / scale), round(FRAME_WIDTH / scale)


def level_windows(scale: float) -> torch.Tensor:
    """Returns every window of a level as (left, top, width, height) in the frame's pixels,
    [N, 4], row by row; rounded as OpenCV rounds."""
    height, width = level_size(scale)
    tops = numpy.arange(-PADDING, height + PADDING - WINDOW_HEIGHT + 1, CELL)
    lefts = numpy.arange(-PADDING, width + PADDING - WINDOW_WIDTH + 1, CELL)
    corners = numpy.stack(numpy.meshgrid(lefts, tops), axis=-1).reshape(-1, 2)
    sizes = numpy.broadcast_to((WINDOW_WIDTH, WINDOW_HEIGHT), corners.shape)
    return torch.from_numpy(numpy.rint(numpy.hstack([corners, sizes]) * scale)).float()


def cell_kernels() -> torch.Tensor:
    """Returns how much a block's pixels count in each of its four cells, [4, 1, 16, 16], cells
    in the order of OpenCV's coefficients (column by column): a Gaussian over the block, times
    bilinear interpolation between the cells' centres."""
    pixel = torch.arange(BLOCK)
    gauss = torch.exp(-((pixel - BLOCK / 2) ** 2) / (2 * (BLOCK / 4) ** 2))
    distance = (torch.tensor([[0.5], [1.5]]) - (pixel + 0.5) / CELL).abs()
    taps = (1 - distance).clamp(min=0) * gauss
    return torch.stack([torch.outer(taps[y], taps[x]) for x in (0, 1) for y in (0, 1)])[:, None]


@torch.jit.script
def suppress(overlapped_by: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """Returns which candidates [B, K] stay: those that no better window which stays overlaps
    ([B, K, K]). Applied until nothing changes, this is the greedy choice, for all frames at once.
    """
    keep = candidate
    changed = True
    while changed:
        previous = keep
        keep = candidate & ~(overlapped_by & previous.unsqueeze(1)).any(2)
        changed = not torch.equal(keep, previous)
    return keep


class PedestrianDetector(torch.nn.Module):
    """Finds pedestrians in a batch of frames, UINT8 [B, 576, 768, 3]."""

    def __init__(self, scales: Tuple[float, ...] = SCALES, threshold: float = THRESHOLD):
        super().__init__()
        coefficients = torch.from_numpy(cv2.HOGDescriptor_getDefaultPeopleDetector()).flatten()
        svm = coefficients[:-1].reshape(BLOCKS_WIDE, BLOCKS_HIGH, 4 * BINS)
        # One output channel per row of blocks; classify() adds the rows up.
        self.register_buffer("svm_rows", svm.permute(1, 2, 0).unsqueeze(2).contiguous())
        self.svm_bias = coefficients[-1].item()
        self.register_buffer("cell_kernels", cell_kernels())
        self.register_buffer("frame_corner", torch.tensor([FRAME_WIDTH, FRAME_HEIGHT] * 2).float())
        self.register_buffer("windows", torch.cat([level_windows(scale) for scale in scales]))
        self.level_sizes = [level_size(scale) for scale in scales]
        self.threshold = threshold

    def forward(self, frames: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns boxes [B, 64, 4], scores [B, 64] and count [B, 1]."""
        return self.best(self.window_scores(frames))

    def window_scores(self, frames: torch.Tensor) -> torch.Tensor:
        """Returns the SVM's score of every window of `self.windows`, [B, N]: the raw candidates
        are those above the threshold."""
        # Planes and bins are taken one at a time, and in place: they are wanted in the cache.
        planes = [plane.unsqueeze(1).to(torch.float32, memory_format=torch.contiguous_format)
                  for plane in frames.unbind(3)]
        scores = []
        for size in self.level_sizes:
            level = planes
            if size != (FRAME_HEIGHT, FRAME_WIDTH):
                level = [F.interpolate(plane, size, mode="bilinear").round_() for plane in planes]
            scores.append(self.classify(self.blocks(level)).flatten(1))
        return torch.cat(scores, dim=1)

    def blocks(self, level: List[torch.Tensor]) -> torch.Tensor:
        """Returns the normalised histograms of all blocks, [B, 36, rows, columns]."""
        magnitude, orientation = self.gradients(level)
        weighted = orientation * magnitude
        histograms = []
        for bin in range(BINS):
            # A pixel votes with its magnitude, less the more its orientation is off the bin's.
            loss = torch.sub(weighted, magnitude, alpha=bin).abs_()
            if bin == 0 or bin == BINS - 1:  # Orientations go round.
                loss = torch.minimum(loss, BINS * magnitude - loss)
            votes = (magnitude - loss).clamp_(min=0)
            histograms.append(F.conv2d(votes, self.cell_kernels, stride=[CELL, CELL]))
        blocks = torch.stack(histograms, dim=2).flatten(1, 2)
        # L2-Hys: normalise, clip what dominates, normalise again.
        blocks = blocks / (blocks.square().sum(1, keepdim=True).sqrt_() + 0.1 * 4 * BINS)
        blocks = blocks.clamp_(max=0.2)
        return blocks / (blocks.square().sum(1, keepdim=True).sqrt_() + 1e-3)

    def gradients(self, level: List[torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
        """Returns each pixel's gradient: its magnitude and its orientation in bins, from -0.5 to
        8.5, both [B, 1, H, W], of the channel in which it is steepest."""
        edge = PADDING + 1
        steepest = steepest_dx = steepest_dy = None
        for plane in reversed(level):
            padded = F.pad(plane.sqrt(), [edge, edge, edge, edge], mode="reflect")
            dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
            dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
            square = dx.square().addcmul_(dy, dy)
            if steepest is None:
                steepest, steepest_dx, steepest_dy = square, dx, dy
                continue
            # lerp() by 0 or 1 chooses, and is several times as fast as where().
            steeper = (square > steepest).to(torch.float32)
            steepest = torch.maximum(steepest, square)
            steepest_dx.lerp_(dx, steeper)
            steepest_dy.lerp_(dy, steeper)
        turns = torch.atan2(steepest_dy, steepest_dx) / math.pi
        # Opposite directions are one orientation: half a turn is added to the negative ones.
        turns += (turns < 0).to(torch.float32)
        return steepest.sqrt_(), turns.mul_(BINS).sub_(0.5)

    def classify(self, blocks: torch.Tensor) -> torch.Tensor:
        """Returns the SVM's score of every window of one level, [B, rows, columns]."""
        rows = F.conv2d(blocks, self.svm_rows)
        count = rows.shape[2] - BLOCKS_HIGH + 1
        scores = rows[:, 0, :count] + self.svm_bias
        for row in range(1, BLOCKS_HIGH):
            scores += rows[:, row, row : row + count]
        return scores

    def best(self, window_scores: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Suppresses what a better window overlaps, and returns what forward() returns."""
        scores, order = window_scores.topk(MAX_CANDIDATES, dim=1)
        left, top, width, height = self.windows[order].unbind(2)
        # A window has a margin around the person.
        boxes = torch.stack([left + 0.1 * width, top + 0.07 * height,
                             left + 0.9 * width, top + 0.87 * height], dim=2)
        right_bottom = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
        left_top = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
        shared = (right_bottom - left_top).clamp(min=0).prod(3)
        area = (boxes[:, :, 2:] - boxes[:, :, :2]).prod(2)
        overlap = shared / torch.minimum(area[:, :, None], area[:, None, :])
        # Scores are sorted, so the better windows are those before a window.
        keep = suppress((overlap > MAX_OVERLAP).tril(-1), scores > self.threshold)
        scores, order = scores.masked_fill(~keep, -math.inf).topk(MAX_DETECTIONS, dim=1)
        found = scores > self.threshold
        boxes = boxes.gather(1, order[:, :, None].expand(-1, -1, 4)).clamp(min=0)
        boxes = torch.minimum(boxes, self.frame_corner)
        return (boxes.masked_fill(~found[:, :, None], 0), scores.masked_fill(~found, 0),
                found.sum(1, keepdim=True).to(torch.int32))


def write_model(into: pathlib.Path, pictures: bool = False) -> pathlib.Path:
    """Writes the model's folder into the repository `into` and returns it. The model takes tensors
    of pixels, or files of `pictures`."""
    folder = into / "pedestrians"
    (folder / "1").mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, FRAME_HEIGHT, FRAME_WIDTH, 3, dtype=torch.uint8)
    with torch.inference_mode():
        model = torch.jit.trace(PedestrianDetector().eval(), example)
    model.save(str(folder / "1" / "model.pt"))
    (folder / "config.pbtxt").write_text(CONFIG + (TRANSFORM if pictures else ""))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the demo's pedestrian model.")
    parser.add_argument("--into", required=True, type=pathlib.Path, metavar="DIR",
                        help="the model repository to write it into")
    parser.add_argument("--pictures", action="store_true",
                        help="the model takes files of pictures, not tensors of pixels")
    arguments = parser.parse_args()
    print(f"wrote {write_model(arguments.into, arguments.pictures)}")


if __name__ == "__main__":
    main()
