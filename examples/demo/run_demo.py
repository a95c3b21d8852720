#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Streams a video through a pedestrian detector on a Millrace server of its own.

    ./dev demo                        builds everything first; arguments are passed on
    ./dev demo --video street.mp4     another video
    ./dev demo --json | jq .          one JSON object per line

Three gRPC streams play the video from three places at once, as JPEG frames, which the server
decodes and batches across its replicas. Half-way one replica is killed. Then `millrace map` sends a
folder of pictures to the same server. The demo fails (exit code 1) if any frame's answer is lost,
doubled or out of its stream's order, if the replica is not replaced, or if a picture has no answer.
"""

import argparse
import contextlib
import pathlib
import queue
import signal
import sys
import time

import tritonclient.grpc as grpcclient
from contact_sheet import write_contact_sheet
from frame_stream import (HEIGHT, MODEL, WIDTH, FrameStream, StreamEnd, count_frames,
                          read_frames)
from picture_folder import Mapped, map_folder, write_pictures
from report import JsonReport, Summary, TextReport
from demo_server import PATIENCE, DemoServer, ServerError
from tally import Tally

ROOT = pathlib.Path(__file__).resolve().parents[2]
STREAMS = 3
WINDOW = 4  # Frames of a stream under way: enough to keep two replicas in full batches.
SHEET_COLUMNS = 4
RECORDS = "pictures.jsonl"


def play(server: DemoServer, args: argparse.Namespace, report) -> Summary:
    """Streams the video, kills a replica half-way, and returns what came of it."""
    replicas = server.metric("millrace_ready_replicas", MODEL)
    report.start(shown(args.video), STREAMS, args.frames, WINDOW, server.plan())
    length = count_frames(args.video)
    tally = Tally(STREAMS, args.frames, SHEET_COLUMNS)
    inbox: queue.Queue = queue.Queue()
    killed = 0
    begin = time.monotonic()
    with contextlib.ExitStack() as streams:
        for number in range(STREAMS):
            frames = read_frames(args.video, number * length // STREAMS, args.frames)
            stream = FrameStream(number, server.url, frames, WINDOW, inbox)
            streams.callback(stream.close)
        while tally.open_streams:
            try:
                event = inbox.get(timeout=PATIENCE)
            except queue.Empty:
                raise ServerError(f"no answer for {PATIENCE} s: see {server.log}") from None
            if isinstance(event, StreamEnd):
                tally.end(event)
                continue
            tally.add(event)
            report.answer(event)
            if not killed and 2 * tally.answered >= tally.expected:
                killed = server.kill_replica()
                report.killed(killed, tally.answered)
    seconds = time.monotonic() - begin
    order_verified = not tally.faults

    if killed:
        server.wait_until_replaced(MODEL, restarts=1, ready=replicas)
    restarts = int(server.metric("millrace_replica_restarts_total", MODEL))
    if restarts != 1:
        tally.faults.append(f"one replica was killed, but {restarts} were restarted")
    mean_batch_size = measure_mean_batch_size(server.url)
    transform_wait_ms = 1000 * server.median("millrace_transform_wait_seconds", MODEL)
    folder = map_pictures(server, args, report)
    if folder.pictures != folder.expected_pictures:
        tally.faults.append(f"{folder.pictures} answers to {folder.expected_pictures} pictures")
    if (code := server.stop()) != 0:
        tally.faults.append(f"the server ended with code {code}")
    sheet = args.output / "contact-sheet.png"
    write_contact_sheet(tally.samples, sheet)
    return Summary(
        frames=tally.answered, expected_frames=tally.expected, streams=STREAMS,
        seconds=seconds, frames_per_second=tally.answered / seconds,
        latency_p50_ms=tally.latency_ms(50), latency_p99_ms=tally.latency_ms(99),
        jpeg_bytes=tally.median("sent_bytes"), raw_bytes=WIDTH * HEIGHT * 3,
        transform_wait_ms=transform_wait_ms, decode_ms=tally.median("decode_ms"),
        resize_ms=tally.median("resize_ms"), inference_ms=tally.median("inference_ms"),
        mean_batch_size=mean_batch_size, order_verified=order_verified,
        frames_of_replica=dict(tally.frames_of_replica),
        killed_pid=killed, replica_restarts=restarts, folder=folder,
        records=shown(args.output / RECORDS), contact_sheet=shown(sheet),
        server_log=shown(server.log), faults=tally.faults)


def map_pictures(server: DemoServer, args: argparse.Namespace, report) -> Mapped:
    """Sends a folder of pictures through the command line, and returns what came of it."""
    folder = args.output / "pictures"
    write_pictures(args.video, folder, args.pictures)
    report.maps(shown(folder), args.pictures)
    return map_folder(args.server.with_name("millrace"), server.url, folder,
                      args.output / RECORDS)


def measure_mean_batch_size(url: str) -> float:
    """Asks the server how many frames went through the model at a time."""
    with grpcclient.InferenceServerClient(url) as client:
        (model,) = client.get_inference_statistics(MODEL).model_stats
    return model.inference_count / max(1, model.execution_count)


def shown(path: pathlib.Path) -> str:
    """Returns the path as seen from here, where it lies below."""
    here = pathlib.Path.cwd()
    path = path.resolve()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=pathlib.Path, default=ROOT / ".cache" / "vtest.avi",
                        help="any video that OpenCV reads; it is scaled to 768x576 "
                             "(default: %(default)s)")
    parser.add_argument("--frames", type=positive, default=200, metavar="N",
                        help="frames of each stream; a video that ends begins again "
                             "(default: %(default)s)")
    parser.add_argument("--pictures", type=positive, default=60, metavar="N",
                        help="pictures in the folder, out of the video (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print lines of JSON")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "build" / "demo",
                        metavar="DIR", help="where contact-sheet.png, server.log, the pictures and "
                                            "their records go (default: %(default)s)")
    parser.add_argument("--server", type=pathlib.Path, metavar="FILE",
                        default=ROOT / "build" / "bin" / "millrace-server",
                        help="the server's program (default: %(default)s)")
    parser.add_argument("--models", type=pathlib.Path, metavar="DIR",
                        default=ROOT / "build" / "demo-models",
                        help="what pedestrian_model.py made (default: %(default)s)")
    args = parser.parse_args()
    for path in (args.video, args.server, args.models / MODEL):
        if not path.exists():
            parser.error(f"{path} isn't there: ./dev demo makes it")
    return args


def main() -> int:
    args = parse_arguments()
    # Whoever ends the demo, ends the server: SIGTERM does what Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args.output.mkdir(parents=True, exist_ok=True)
    report = JsonReport() if args.json else TextReport()
    try:
        with DemoServer(args.server, args.models, args.output / "server.log") as server:
            summary = play(server, args, report)
    except ServerError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the server was stopped", file=sys.stderr)
        return 130
    report.summary(summary)
    for fault in summary.faults:
        print(f"FAILED: {fault}", file=sys.stderr)
    return 1 if summary.faults else 0


if __name__ == "__main__":
    sys.exit(main())
