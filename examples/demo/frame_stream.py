# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Sends the frames of a video as JPEG over one gRPC stream, with the stock Triton client."""

import dataclasses
import pathlib
import queue
import threading
import time
from typing import Dict, Iterator, List, Optional, Tuple

import cv2
import numpy
import tritonclient.grpc as grpcclient

MODEL = "pedestrians"
WIDTH, HEIGHT = 768, 576
JPEG_QUALITY = 90


@dataclasses.dataclass(frozen=True)
class Frame:
    index: int  # Its place in the video.
    seconds: float
    picture: numpy.ndarray  # BGR, WIDTH x HEIGHT.


@dataclasses.dataclass(frozen=True)
class Detection:
    box: Tuple[int, int, int, int]  # Left, top, right, bottom.
    score: float


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back for a frame."""

    stream: int
    number: int  # The request that this claims to answer: the frame's place in its stream.
    frame: Frame
    detections: List[Detection]  # The best first.
    latency: float  # Seconds from handing the frame to the client library.
    replica: int
    batch_size: int
    sent_bytes: int  # Of the frame, as JPEG.
    decode_ms: float
    resize_ms: float  # With being put into its batch; the mean of the batch.
    inference_ms: float  # Of its batch.


@dataclasses.dataclass(frozen=True)
class StreamEnd:
    """The last thing that comes from a stream, with the reason if that is an error."""

    stream: int
    error: Optional[str] = None


def as_jpeg(frame: Frame) -> bytes:
    _, file = cv2.imencode(".jpg", frame.picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return file.tobytes()


def as_tensor(file: bytes) -> grpcclient.InferInput:
    """Returns the file of a picture as the model's input: a batch of one."""
    tensor = grpcclient.InferInput("frames", (1, 1), "BYTES")
    return tensor.set_data_from_numpy(numpy.array([[file]], dtype=object))


def count_frames(video: pathlib.Path) -> int:
    """Returns the number of frames in the video, by the file's own account."""
    capture = cv2.VideoCapture(str(video))
    if not capture.isOpened():
        raise SystemExit(f"{video}: can't be read as a video")
    return max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))


def read_frames(video: pathlib.Path, start: int, count: int) -> Iterator[Frame]:
    """Yields `count` frames from frame `start` on; after the last one the video begins again."""
    index, capture = 0, cv2.VideoCapture(str(video))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    while index < start and capture.grab():
        index += 1
    for _ in range(count):
        readable, picture = capture.read()
        if not readable:
            index, capture = 0, cv2.VideoCapture(str(video))
            readable, picture = capture.read()
            if not readable:
                raise SystemExit(f"{video}: no frame can be read")
        if picture.shape[:2] != (HEIGHT, WIDTH):
            picture = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        yield Frame(index, index / rate, picture)
        index += 1


class FrameStream:
    """Sends frames over a stream of its own, `window` of them under way, and puts an Answer for
    each, as it comes, and a StreamEnd last, into `inbox`."""

    def __init__(self, number: int, url: str, frames: Iterator[Frame], window: int,
                 inbox: queue.Queue):
        self._number = number
        self._frames = frames
        self._window = window
        self._inbox = inbox
        self._room = threading.Semaphore(window)  # A place for each frame that may be under way.
        self._stopping = False
        self._error: Optional[str] = None
        self._sent: Dict[int, Tuple[Frame, int, float]] = {}
        self._client = grpcclient.InferenceServerClient(url)
        self._client.start_stream(self._take)
        self._sender = threading.Thread(target=self._send, name=f"stream {number}", daemon=True)
        self._sender.start()

    def close(self) -> None:
        """Ends the stream, and cancels what is still under way."""
        self._stopping = True
        self._room.release()
        self._sender.join(timeout=10)

    def _send(self) -> None:
        try:
            for number, frame in enumerate(self._frames):
                self._room.acquire()
                if self._stopping:
                    break
                file = as_jpeg(frame)
                self._sent[number] = frame, len(file), time.monotonic()
                self._client.async_stream_infer(MODEL, [as_tensor(file)], request_id=str(number),
                                                parameters={"millrace_timings": True})
            for _ in range(self._window):  # Until all frames are answered.
                if not self._stopping:
                    self._room.acquire()
        except Exception as error:  # Whatever it is: the main thread has to know of it.
            self._error = self._error or str(error)
            self._stopping = True
        # Says that no more frames follow, and waits until the server ends the stream, too.
        self._client.stop_stream(cancel_requests=self._stopping)
        self._client.close()
        self._inbox.put(StreamEnd(self._number, self._error))

    def _take(self, result, error) -> None:
        """Is called by the client library for each answer, in the order of their arrival."""
        now = time.monotonic()
        if error is None:
            try:
                self._inbox.put(self._answer(result, now))
            except (KeyError, ValueError) as surprise:
                error = f"an answer can't be read: {surprise!r}"
        if error is not None:
            self._error = self._error or str(error)
            self._stopping = True
        self._room.release()

    def _answer(self, result: grpcclient.InferResult, now: float) -> Answer:
        response = result.get_response()
        number = int(response.id)
        # A second answer finds nothing: KeyError.
        frame, sent_bytes, sent = self._sent.pop(number)
        told = {name: response.parameters[f"millrace_{name}"].int64_param for name in
                ("replica", "batch_size", "transform_us", "fill_us", "execute_us")}
        count = int(result.as_numpy("count").item())
        boxes = result.as_numpy("boxes")[0, :count].round().astype(int).tolist()
        scores = result.as_numpy("scores")[0, :count].tolist()
        return Answer(
            stream=self._number, number=number, frame=frame,
            detections=[Detection(tuple(box), score) for box, score in zip(boxes, scores)],
            latency=now - sent, replica=told["replica"], batch_size=told["batch_size"],
            sent_bytes=sent_bytes, decode_ms=told["transform_us"] / 1000,
            resize_ms=told["fill_us"] / told["batch_size"] / 1000,
            inference_ms=told["execute_us"] / 1000)
