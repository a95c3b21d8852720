# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""`millrace stream`: videos, cameras and raw frames, each answer with its own frame.

Every frame has its number drawn into its pixels, as blocks that survive compression. The models read
it, and place a box by it; so answers tell what they are the answer to.
"""

import contextlib
import http.server
import json
import pathlib
import random
import re
import signal
import socket
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from server_process import BIN, Entry, Server, eventually, make_repository

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT, FPS = 320, 240, 25


def drawn(number):
    """A frame, RGB: its number's 16 bits in the upper quarter, their opposites in the one below."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for column in range(16):
        bit = number >> (15 - column) & 1
        for row, on in ((0, bit), (1, 1 - bit)):
            frame[60 * row:60 * row + 60, 20 * column:20 * column + 20] = 235 if on else 20
    return frame


def read_number(frame):
    """The number in a frame's pixels."""
    middles = frame.mean(axis=2)[:120].reshape(2, 60, 16, 20)[:, 16:44, :, 6:14].mean(axis=(1, 3))
    bits = middles > 128
    assert (bits[0] != bits[1]).all()
    return int("".join(map(str, bits[0].astype(int))), 2)


def box_left(number):
    return 8 + 4 * (number % 56)  # As modules.FrameNumber places it.


def assert_box_is_drawn(frame):
    """The box on an annotated frame, RGB, is that of the number in the same pixels."""
    number = read_number(frame)
    row = frame[185].astype(int)  # Through the middle of every box.
    green = np.flatnonzero(row[:, 1] - np.maximum(row[:, 0], row[:, 2]) > 40)
    assert abs(green.min() - box_left(number)) <= 2, (number, green)
    assert abs(green.max() - (box_left(number) + 39)) <= 2, (number, green)
    return number


def decoded(path):
    """The frames of a video, RGB."""
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


def write_video(path, numbers):
    ffmpeg = ["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
              "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-", "-c:v", "libx264", "-preset",
              "veryfast", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(ffmpeg, input=b"".join(drawn(number).tobytes() for number in numbers),
                   check=True, timeout=60)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = make_repository(tmp_path_factory.mktemp("models"), [
        Entry("numbered_pixels", replicas=1), Entry("numbered_pictures", replicas=1)])
    with Server(tmp_path_factory.mktemp("server"), repositories=[repository]) as running:
        yield running


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "numbers.mp4", range(60))


NUMBER, ALL = ("number",), ("number", "boxes", "scores", "count")


def command(server, *arguments, model="numbered_pixels", outputs=NUMBER):
    wanted = [part for name in outputs for part in ("--output", name)]
    return [str(BIN / "millrace"), "stream", "-u", server.address, "--model", model, "--json",
            *wanted, *map(str, arguments)]


def run(server, *arguments, stdin=None, **more):
    return subprocess.run(command(server, *arguments, **more), input=stdin, capture_output=True,
                          check=False, timeout=120)


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def number_of(record):
    return record["outputs"][0]["data"][0]


class Running:
    """A `millrace stream` that runs on, and what it has said so far."""

    def __init__(self, server, *arguments, **more):
        self.process = subprocess.Popen(command(server, *arguments, **more), text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.records, self.errors = [], []
        self._readers = [
            threading.Thread(target=lambda: self.records.extend(
                json.loads(line) for line in self.process.stdout), daemon=True),
            threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True)]
        for reader in self._readers:
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)

    def answered(self, connection=None):
        """The answers so far that are no errors, perhaps of one connection only."""
        return [record for record in list(self.records) if "outputs" in record
                and connection in (None, record.get("connection"))]

    def said(self, text):
        return any(text in line for line in list(self.errors))

    def stop(self, number=signal.SIGINT, within=30):
        """Its exit code, and the last line of its summary."""
        self.process.send_signal(number)
        code = self.process.wait(within)
        for reader in self._readers:
            reader.join(30)
        return code, self.errors[-1] if self.errors else ""


# ---- Files ----

def test_several_files_each_in_order_with_its_own_answers(server, tmp_path, video):
    other = write_video(tmp_path / "more.mkv", range(1000, 1090))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2000, 2030):
        Image.fromarray(drawn(number)).save(pictures / f"{number}.png")
    done = run(server, video, other, pictures)
    assert done.returncode == 0, done.stderr
    found = records(done.stdout)
    for source, (name, first, count) in enumerate(
            ((video, 0, 60), (other, 1000, 90), (pictures, 2000, 30))):
        own = [record for record in found if record["source"] == source]
        assert [record["frame"] for record in own] == list(range(count))
        assert [number_of(record) for record in own] == list(range(first, first + count))
        for record in own:
            assert record["pts"] == pytest.approx(record["frame"] / FPS, abs=0.002)
            assert record["name"] == str(name)
    assert b"all: 180 frames in " in done.stderr


def test_pictures_are_sent_as_jpeg_or_as_pixels(server, video):
    sizes = {}
    for send in ([], ["--send", "jpeg:30"], ["--send", "raw"], ["--send", "raw", "--bgr"]):
        done = run(server, video, "--frames", 40, *send, model="numbered_pictures")
        assert done.returncode == 0, done.stderr
        assert [number_of(record) for record in records(done.stdout)] == list(range(40))
        sizes[" ".join(send)] = float(re.search(rb"(\d+\.\d) KB a frame", done.stderr)[1])
    assert sizes["--send raw"] == WIDTH * HEIGHT * 3 / 1000
    assert sizes["--send jpeg:30"] < sizes[""] < sizes["--send raw"] / 4


def test_realtime_takes_as_long_as_the_video(server, video):
    with Running(server, video, "--realtime", "--frames", 26) as running:
        begin = time.monotonic()
        assert running.process.wait(30) == 0
        assert time.monotonic() - begin > 25 / FPS


def test_frames_keep_their_answers_across_connections(tmp_path, video):
    """A server that sends its clients on every half second."""
    with Server(tmp_path, [Entry("numbered_pixels", replicas=1)],
                flags=["--max-connection-age", "500ms"]) as server:
        done = run(server, "--realtime", video)  # 2.4 seconds.
        assert done.returncode == 0, done.stderr
        assert [number_of(record) for record in records(done.stdout)] == list(range(60))
        assert server.metric("millrace_streams_opened_total") >= 3


def test_frames_that_the_server_drops_are_counted_and_are_no_errors(server, video):
    with Running(server, video, "--realtime", "--overflow", "latest", "--window", 60) as running:
        eventually(lambda: running.answered())
        with server.frozen_replicas():
            time.sleep(1)
        assert running.process.wait(30) == 0
        eventually(lambda: running.errors)
    dropped = [record for record in running.records if "error" in record]
    assert {record["error"]["code"] for record in dropped} == {"ABORTED"}
    assert len(running.records) == 60 and 10 < len(dropped) < 50
    assert running.errors[-1].endswith(f"; {len(dropped)} dropped by the server\n")


# ---- stdin ----

@pytest.mark.parametrize("pixels, conversion", [
    ("rgb24", None), ("bgr24", cv2.COLOR_RGB2BGR), ("gray8", cv2.COLOR_RGB2GRAY),
    ("yuv420p", cv2.COLOR_RGB2YUV_I420)])
def test_raw_frames_on_stdin(server, pixels, conversion):
    frames = [drawn(number) for number in range(500, 530)]
    if conversion is not None:
        frames = [cv2.cvtColor(frame, conversion) for frame in frames]
    raw = [*"- --input-size 320x240 --input-fps 10 --input-format".split(), pixels]
    done = run(server, *raw, stdin=b"".join(frame.tobytes() for frame in frames))
    assert done.returncode == 0, done.stderr
    found = records(done.stdout)
    assert [number_of(record) for record in found] == list(range(500, 530))
    assert [record["pts"] for record in found] == pytest.approx([i / 10 for i in range(30)])


def test_stdin_that_ends_within_a_frame_is_an_error_after_the_whole_ones(server):
    raw = b"".join(drawn(number).tobytes() for number in range(3))[:-1000]
    done = run(server, *"- --input-size 320x240 --input-format rgb24".split(), stdin=raw)
    assert done.returncode == 1
    assert b"ended in the middle of a frame: 229400 of its 230400 bytes came" in done.stderr
    assert [number_of(record) for record in records(done.stdout)] == [0, 1]


def test_container_on_stdin(server, tmp_path):
    stream = write_video(tmp_path / "numbers.ts", range(20)).read_bytes()
    done = run(server, "-", stdin=stream)
    assert [number_of(record) for record in records(done.stdout)] == list(range(20)), done.stderr


# ---- Annotations ----

def test_annotated_video_has_every_frame_with_its_own_box(server, tmp_path, video):
    for model, name in (("numbered_pixels", "a.mp4"), ("numbered_pictures", "b.avi")):
        done = run(server, video, "--annotate", tmp_path / name, model=model, outputs=ALL)
        assert done.returncode == 0, done.stderr
        frames = decoded(tmp_path / name)
        assert [assert_box_is_drawn(frame) for frame in frames] == list(range(60))
        assert all(frame[205:212, 0:5].max() < 130 for frame in frames)  # Nothing else is drawn.


def test_threshold_leaves_boxes_out(server, tmp_path, video):
    done = run(server, video, "--annotate", tmp_path / "a.mkv", "--threshold", 0.8,
               outputs=ALL)
    assert done.returncode == 0, done.stderr
    frames = decoded(tmp_path / "a.mkv")
    assert len(frames) == 60
    assert all((frame[140:, :, 1].astype(int) - frame[140:, :, 0]).max() < 40 for frame in frames)


def test_contact_sheet_and_files_of_several_sources(server, tmp_path, video):
    done = run(server, video, video, "--contact-sheet", tmp_path / "sheet.png", "--sheet-frames", 4,
               "--annotate", tmp_path / "out.mp4", "--frames", 30, outputs=ALL)
    assert done.returncode == 0, done.stderr
    for source in range(2):
        assert len(decoded(tmp_path / f"out-{source}.mp4")) == 30
        sheet = np.asarray(Image.open(tmp_path / f"sheet-{source}.png"))
        assert sheet.shape == (2 * 240 + 3 * 4, 2 * 320 + 3 * 4, 3)
        tiles = [sheet[y:y + 240, x:x + 320] for y in (4, 248) for x in (4, 328)]
        assert [assert_box_is_drawn(tile) for tile in tiles] == [0, 8, 16, 24]


def test_interrupt_leaves_a_summary_and_a_whole_video(server, tmp_path, video):
    with Running(server, video, "--realtime", "--annotate", tmp_path / "a.mp4",
                 outputs=ALL) as running:
        eventually(lambda: len(running.answered()) >= 10)
        code, summary = running.stop()
    assert code == 130
    assert 10 <= len(running.records) < 60 and f"{len(running.records)} frames in " in summary
    numbers = [assert_box_is_drawn(frame) for frame in decoded(tmp_path / "a.mp4")]
    assert numbers == [number_of(record) for record in running.records]


def test_second_interrupt_ends_at_once(server, video):
    with server.frozen_replicas(), Running(server, video) as running:
        eventually(lambda: server.metric("millrace_in_flight_requests") >= 1)
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # It waits for what is under way.
        assert running.process.poll() is None
        code, _ = running.stop(within=5)
        assert code == -signal.SIGINT


# ---- Live sources ----

def free_ports(count):
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class RtspCamera:
    """An RTSP server on loopback, and ffmpeg that pushes numbered frames to it in real time."""

    def __init__(self):
        self.ports = free_ports(2)
        self.url = f"rtsp://127.0.0.1:{self.ports[1]}/camera"
        self.server = self.ffmpeg = self._feeder = None
        self._stopping = threading.Event()

    def start(self, first):
        """Begins to show frames from number `first` on."""
        rtp = 2 * random.SystemRandom().randrange(10_000, 15_000)
        self.server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "perl", HERE / "rtsp_server.pl",
             *map(str, self.ports), str(rtp)], stdout=subprocess.DEVNULL)
        eventually(self._listens, "the RTSP server doesn't listen")
        self.ffmpeg = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "ffmpeg", "-loglevel", "error", "-f", "rawvideo",
             "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-", "-c:v",
             "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "5", "-pix_fmt",
             "yuv420p", "-f", "rtsp", f"rtsp://127.0.0.1:{self.ports[0]}/camera"],
            stdin=subprocess.PIPE)
        self._stopping.clear()
        self._feeder = threading.Thread(target=self._feed, args=(first,), daemon=True)
        self._feeder.start()

    def _listens(self):
        with contextlib.suppress(OSError), socket.create_connection(
                ("127.0.0.1", self.ports[0]), timeout=1):
            return True
        return False

    def _feed(self, number):
        begin, sent = time.monotonic(), 0
        with contextlib.suppress(BrokenPipeError, ValueError):
            while not self._stopping.wait(max(0, begin + sent / FPS - time.monotonic())):
                self.ffmpeg.stdin.write(drawn(number + sent).tobytes())
                self.ffmpeg.stdin.flush()
                sent += 1

    def freeze(self):
        self.server.send_signal(signal.SIGSTOP)

    def kill(self):
        for process in (self.server, self.ffmpeg):
            if process:
                process.kill()
                process.wait(30)
        self._stopping.set()
        if self._feeder:
            self._feeder.join(30)
        if self.ffmpeg:
            with contextlib.suppress(BrokenPipeError):
                self.ffmpeg.stdin.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def assert_paired(answers):
    """Within a connection the camera's clock and the number in the pixels go together: an answer
    that was another frame's would be off, since frames are dropped irregularly."""
    offsets = {round(record["pts"] * FPS) - number_of(record) for record in answers}
    assert len(offsets) == 1, offsets
    numbers = [number_of(record) for record in answers]
    assert numbers == sorted(set(numbers)) and numbers[0] >= 0


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_rtsp_answers_belong_to_their_frames_across_reconnects(server, tmp_path, transport):
    with RtspCamera() as camera:
        camera.start(first=0)
        with Running(server, camera.url, "--rtsp-transport", transport, "--reconnect-max", 0.5,
                     "--annotate", tmp_path / "live.mp4",
                     outputs=ALL) as running:
            eventually(lambda: len(running.answered(0)) >= 20)
            with server.frozen_replicas():  # Frames are dropped meanwhile, here and there.
                time.sleep(2.5)
            eventually(lambda: len(running.answered(0)) >= 35)
            camera.kill()
            eventually(lambda: running.said("connecting again in "))
            camera.start(first=10_000)
            eventually(lambda: len(running.answered(1)) >= 20)
            camera.freeze()  # A peer that is there, and says nothing.
            begin = time.monotonic()
            eventually(lambda: running.said("nothing came for 5s"))
            assert time.monotonic() - begin < 8
            camera.kill()
            camera.start(first=20_000)
            eventually(lambda: len(running.answered(2)) >= 20)
            code, summary = running.stop(within=20)
    assert code == 130
    for connection in range(3):
        assert_paired(running.answered(connection))
    frames = [record["frame"] for record in running.records]
    assert frames == sorted(set(frames))  # Also over reconnects; those that are missing were dropped.
    times = [record["pts"] for record in running.records]
    assert times == sorted(times)
    counts = re.search(r"(\d+) read, (\d+) sent, (\d+) dropped here, (\d+) by the server, "
                       r"(\d+) reconnects", summary)
    read, sent, here, by_server, reconnects = map(int, counts.groups())
    assert here > 5 and by_server > 5 and reconnects == 2
    # One that was read last may neither have been sent nor dropped.
    assert read - 1 <= sent + here <= read
    assert sent == len(running.records) == len(running.answered()) + by_server
    # The pixels that were kept here and the answer that came for them are the same frame's.
    drawn_numbers = [assert_box_is_drawn(frame) for frame in decoded(tmp_path / "live.mp4")]
    assert drawn_numbers == [number_of(record) for record in running.answered()]


class MjpegCamera(http.server.ThreadingHTTPServer):
    """Pictures over HTTP, as webcams send them; each connection gets 15 and is then cut."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.next_number = 0
        self.url = f"http://127.0.0.1:{self.server_port}/video.mjpg"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for _ in range(15):
                    jpeg = cv2.imencode(".jpg", drawn(self.server.next_number))[1].tobytes()
                    self.server.next_number += 1
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: "
                                     b"%d\r\n\r\n%s\r\n" % (len(jpeg), jpeg))
                    time.sleep(0.04)

        def log_message(self, *_):
            pass

    def __exit__(self, *_):
        self.shutdown()
        super().__exit__()


def test_mjpeg_over_http_is_connected_again(server):
    with MjpegCamera() as camera, Running(server, camera.url, "--reconnect-max", 0.1) as running:
        eventually(lambda: len(running.answered(2)) >= 3)
        code, summary = running.stop()
    assert code == 130 and re.search(r" [2-9] reconnects$", summary.strip()), summary
    numbers = [number_of(record) for record in running.answered()]
    assert numbers == sorted(set(numbers)) and numbers[0] >= 0
    times = [record["pts"] for record in running.answered()]
    assert all(0 <= b - a < 2 for a, b in zip(times, times[1:]))


def test_camera_that_isnt_there_ends_no_other_source(server, video):
    done = run(server, "rtsp://user:secret@127.0.0.1:1/x", video, "/dev/video98765",
               "--no-reconnect")
    assert done.returncode == 1
    assert len(records(done.stdout)) == 60
    said = done.stderr.decode()
    assert "UNAVAILABLE: rtsp://127.0.0.1:1/x: " in said and "secret" not in said
    assert "NOT_FOUND: /dev/video98765: " in said


def test_interrupt_ends_a_camera_that_is_waited_for(server):
    with Running(server, "rtsp://127.0.0.1:1/x") as running:
        eventually(lambda: running.said("Connection refused; connecting again in "))
        code, summary = running.stop(within=5)
    assert code == 130 and " 0 read, 0 sent" in summary
