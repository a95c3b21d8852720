# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the demo, but shortly, and checks what it says.

MILLRACE_BIN names the folder of the programs (default: build/bin), MILLRACE_DEMO_MODELS that of
the demo's model (default: build/demo-models), MILLRACE_VIDEO the video (default: .cache/vtest.avi).
"""

import json
import os
import pathlib
import signal
import subprocess
import sys

import cv2

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("MILLRACE_BIN", ROOT / "build" / "bin"))
MODELS = pathlib.Path(os.environ.get("MILLRACE_DEMO_MODELS", ROOT / "build" / "demo-models"))
VIDEO = pathlib.Path(os.environ.get("MILLRACE_VIDEO", ROOT / ".cache" / "vtest.avi"))
STREAMS, FRAMES, LENGTH, PICTURES = 3, 8, 795, 6


def command(output, *flags):
    return [sys.executable, str(ROOT / "examples" / "demo" / "run_demo.py"), "--json", "--output",
            str(output), "--server", str(BIN / "millrace-server"), "--models", str(MODELS),
            "--video", str(VIDEO), *flags]


def processes_of(folder):
    """The processes whose command line names `folder`."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            pass  # It has ended meanwhile.
    return found


def test_every_frame_is_answered_in_order_though_a_replica_is_killed(tmp_path):
    done = subprocess.run(command(tmp_path, "--frames", str(FRAMES), "--pictures", str(PICTURES)),
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert lines[0]["event"] == "start"
    assert lines[0]["plan"][0].split()[:2] == ["model", "version"]
    assert lines[0]["plan"][1].split()[:2] == ["pedestrians", "1"]

    frames = [line for line in lines if line["event"] == "frame"]
    for stream in range(STREAMS):
        answers = [line for line in frames if line["stream"] == stream]
        assert [line["number"] for line in answers] == list(range(FRAMES))
        start = stream * LENGTH // STREAMS
        assert [line["frame"] for line in answers] == list(range(start, start + FRAMES))
    assert sum(len(line["detections"]) for line in frames) > len(frames), "too few pedestrians"
    for detection in (d for line in frames for d in line["detections"]):
        left, top, right, bottom = detection["box"]
        assert 0 <= left < right <= 768 and 0 <= top < bottom <= 576 and detection["score"] > 0

    (kill,) = (line for line in lines if line["event"] == "kill")
    assert kill["answered"] == STREAMS * FRAMES // 2

    summary = lines[-1]
    assert summary["event"] == "summary"
    assert summary["frames"] == summary["expected_frames"] == STREAMS * FRAMES
    assert summary["order_verified"] and summary["faults"] == []
    assert summary["replica_restarts"] == 1 and summary["killed_pid"] == kill["pid"]
    assert sum(summary["frames_of_replica"].values()) == STREAMS * FRAMES
    assert 1 <= summary["mean_batch_size"] <= 4
    assert 20_000 < summary["jpeg_bytes"] < summary["raw_bytes"] == 768 * 576 * 3
    for stage in ("transform_wait_ms", "decode_ms", "resize_ms", "inference_ms"):
        assert summary[stage] > 0
    folder = summary["folder"]
    assert folder["pictures"] == folder["expected_pictures"] == PICTURES
    assert folder["pedestrians"] > PICTURES
    assert 0 < folder["decode_ms"] < folder["inference_ms"]
    assert len(pathlib.Path(summary["records"]).read_text().splitlines()) == PICTURES
    assert cv2.imread(summary["contact_sheet"]).shape == (3 * 288, 4 * 384, 3)
    assert processes_of(tmp_path) == []


def test_ctrl_c_ends_the_demo_and_its_server(tmp_path):
    models = tmp_path / "models-of-this-test"
    models.symlink_to(MODELS)
    with subprocess.Popen(command(tmp_path, "--models", str(models)), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as demo:
        for line in demo.stdout:
            if json.loads(line)["event"] == "frame":
                break
        assert len(processes_of(models)) >= 2  # The demo and its server.
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=120)
    assert demo.returncode == 130, errors
    assert processes_of(models) == []


def test_a_server_that_dies_fails_the_demo(tmp_path):
    with subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as demo:
        for line in demo.stdout:
            if json.loads(line)["event"] == "frame":
                break
        children = subprocess.run(["pgrep", "-P", str(demo.pid)], capture_output=True, text=True)
        (server,) = children.stdout.split()
        os.kill(int(server), signal.SIGKILL)
        _, errors = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert "FAILED" in errors
