# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Compares the demo's pedestrian model with OpenCV's own detector on real video.

The video is OpenCV's sample vtest.avi, named by MILLRACE_VIDEO (default: .cache/vtest.avi).
"""

import os
import pathlib
import sys

import cv2
import numpy
import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "demo"))
import pedestrian_model as demo  # noqa: E402

VIDEO = pathlib.Path(os.environ.get("MILLRACE_VIDEO", ROOT / ".cache" / "vtest.avi"))
FRAMES = 100
TOO_CLOSE = 0.01  # Scores this near to the threshold may fall on either side of it.
ENLARGED = tuple(scale for scale in demo.SCALES if scale < 1)
SHRUNK = tuple(scale for scale in demo.SCALES if scale >= 1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def frames():
    assert VIDEO.is_file(), f"no video at {VIDEO}: run ./dev setup, or set MILLRACE_VIDEO"
    video = cv2.VideoCapture(str(VIDEO))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    step = total // FRAMES
    assert step > 0, f"{VIDEO} has {total} frames, expected at least {FRAMES}"
    chosen = []
    for index in range(step * FRAMES):
        assert video.grab(), f"{VIDEO} ends at frame {index} of {total}"
        if index % step == 0:
            chosen.append(video.retrieve()[1])
    return chosen


def opencv_detector(levels):
    """OpenCV's people detector with its defaults, but for the number of pyramid levels."""
    hog = cv2.HOGDescriptor((64, 128), (16, 16), (8, 8), (8, 8), 9, 1, -1,
                            cv2.HOGDESCRIPTOR_L2HYS, 0.2, True, levels, False)
    hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    return hog


def opencv_windows(hog, frame, scale):
    """Every window that OpenCV takes for a pedestrian, {(left, top, right, bottom): score}."""
    boxes, scores = hog.detectMultiScale(
        frame, hitThreshold=0, winStride=(demo.CELL, demo.CELL),
        padding=(demo.PADDING, demo.PADDING), scale=scale, groupThreshold=0)
    corners = [(x, y, x + width, y + height)
               for x, y, width, height in numpy.reshape(boxes, (-1, 4))]
    return {tuple(map(int, box)): float(score) for box, score in zip(corners, numpy.ravel(scores))}


def our_windows(detector, frame, scale, width, height):
    """The same of our detector, in the pixels of a picture enlarged by `scale` and, as OpenCV
    does, clipped to its size."""
    scores = detector.window_scores(torch.from_numpy(frame)[None])[0]
    hits = scores > 0
    x, y, w, h = (detector.windows[hits] * scale).round().unbind(1)
    corners = torch.stack([x.clamp(min=0), y.clamp(min=0),
                           (x + w).clamp(max=width), (y + h).clamp(max=height)], dim=1)
    return {tuple(map(int, box)): score for box, score in zip(corners.tolist(),
                                                              scores[hits].tolist())}


def found(wanted, among):
    """How many of the windows `wanted` there are, and how many of them are `among` the others,
    but for those too close to the threshold."""
    clear = [box for box, score in wanted.items() if score > TOO_CLOSE]
    return numpy.array([len(clear), sum(box in among for box in clear)])


def agreement(pairs):
    """The share of OpenCV's windows that we find, and of ours that OpenCV finds."""
    theirs, ours = numpy.zeros(2, int), numpy.zeros(2, int)
    for opencv, millrace in pairs:
        theirs += found(opencv, millrace)
        ours += found(millrace, opencv)
    print(f"OpenCV's windows: {theirs[0]}, found by us: {theirs[1]}; "
          f"ours: {ours[0]}, found by OpenCV: {ours[1]}")
    assert theirs[0] > 100, "the video shows too few pedestrians to compare"
    return theirs[1] / theirs[0], ours[1] / ours[0]


def test_candidate_windows_agree_with_opencv(frames):
    detector = demo.PedestrianDetector(SHRUNK)
    hog = opencv_detector(len(SHRUNK))
    step = SHRUNK[1] / SHRUNK[0]
    assert SHRUNK == tuple(step**level for level in range(len(SHRUNK))), "not OpenCV's pyramid"
    theirs, ours = agreement(
        (opencv_windows(hog, frame, step),
         our_windows(detector, frame, 1, demo.FRAME_WIDTH, demo.FRAME_HEIGHT)) for frame in frames)
    assert theirs >= 0.95
    assert ours >= 0.95


def test_candidate_windows_agree_with_opencv_on_the_enlarged_level(frames):
    # OpenCV never enlarges, so it gets the enlarged frame itself.
    (scale,) = ENLARGED
    detector = demo.PedestrianDetector(ENLARGED)
    hog = opencv_detector(1)
    height, width = demo.level_size(scale)
    theirs, ours = agreement(
        (opencv_windows(hog, cv2.resize(frame, (width, height),
                                        interpolation=cv2.INTER_LINEAR_EXACT), 1.05),
         our_windows(detector, frame, 1 / scale, width, height)) for frame in frames)
    assert theirs >= 0.95
    assert ours >= 0.95


def greedy(boxes, scores):
    """Which boxes non-maximum suppression keeps, the textbook way; sorted by score."""
    kept = []
    for i in numpy.argsort(-scores, kind="stable"):
        corner = numpy.minimum(boxes[i, 2:], boxes[kept, 2:]) - numpy.maximum(boxes[i, :2],
                                                                              boxes[kept, :2])
        sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        overlap = corner.clip(0).prod(1) / numpy.minimum(sizes[i], sizes[kept])
        if (overlap <= demo.MAX_OVERLAP).all():
            kept.append(i)
    return kept


def test_suppression_is_the_greedy_one(frames):
    detector = demo.PedestrianDetector()
    for frame in frames[::10]:
        scores = detector.window_scores(torch.from_numpy(frame)[None])
        boxes, best, count = detector.best(scores)
        hits = (scores[0] > detector.threshold).numpy()
        left, top, width, height = detector.windows.numpy()[hits].T
        windows = numpy.stack([left + 0.1 * width, top + 0.07 * height,
                               left + 0.9 * width, top + 0.87 * height], axis=1)
        kept = greedy(windows, scores[0].numpy()[hits])
        assert len(kept) == count.item()
        expected = windows[kept].clip(0, [demo.FRAME_WIDTH, demo.FRAME_HEIGHT] * 2)
        numpy.testing.assert_allclose(boxes[0, : len(kept)], expected, atol=0.01)
        assert (best[0, : len(kept)] > detector.threshold).all()
        assert (best[0, len(kept) :] == 0).all() and (boxes[0, len(kept) :] == 0).all()


def test_written_model_answers_each_frame_of_a_batch_as_if_alone(frames, tmp_path):
    folder = demo.write_model(tmp_path)
    model = torch.jit.load(folder / "1" / "model.pt").eval()
    model = torch.jit.optimize_for_inference(torch.jit.freeze(model))
    batch = torch.from_numpy(numpy.stack(frames[::25]))
    boxes, scores, count = model(batch)
    assert boxes.dtype == torch.float32 and boxes.shape == (4, demo.MAX_DETECTIONS, 4)
    assert scores.dtype == torch.float32 and scores.shape == (4, demo.MAX_DETECTIONS)
    assert count.dtype == torch.int32 and count.shape == (4, 1) and (count > 0).all()
    detector = demo.PedestrianDetector()
    for row in range(4):
        alone = detector(batch[row : row + 1])
        torch.testing.assert_close(alone[0], boxes[row : row + 1])
        torch.testing.assert_close(alone[1], scores[row : row + 1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(alone[2], count[row : row + 1])
