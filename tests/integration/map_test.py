# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""`millrace map`: a model over many files."""

import csv
import io
import json
import pathlib
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image
from server_process import BIN, Entry, Server, make_repository

COUNT = 60
PICTURES = "millrace { transform { image { } } }\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return make_repository(tmp_path_factory.mktemp("models"), [
        Entry("channel_means", config=PICTURES), Entry("identity")])


@pytest.fixture(scope="module")
def server(tmp_path_factory, repository):
    with Server(tmp_path_factory.mktemp("server"), repositories=[repository]) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of one colour each, which the model tells, in folders; one is no picture."""
    top = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        path = top / f"{number // 20}" / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40 + number, 30), (number, 100, 200)).save(path)
    (top / "1" / "025.png").write_bytes(b"no picture")
    (top / "1" / ".hidden.png").write_bytes(b"nor this")
    (top / "1" / "notes.txt").write_text("nor this")
    return top


def run(*arguments, stdin=None):
    return subprocess.run([BIN / "millrace", "map", *map(str, arguments)], input=stdin, text=True,
                          capture_output=True, check=False, timeout=120)


def mapped(server, *arguments, stdin=None):
    return run("-u", server.address, "--model", "channel_means", *arguments, stdin=stdin)


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def number_of(record):
    return int(record["file"][-7:-4])


def assert_right(found, numbers):
    """Each file once, with what the model makes of it; the broken one with an error."""
    assert sorted(map(number_of, found)) == sorted(numbers)
    for record in found:
        if number_of(record) == 25:
            assert record["error"]["code"] == "INVALID_ARGUMENT"
            assert "picture 0: " in record["error"]["message"]
        else:
            [output] = record["outputs"]
            np.testing.assert_allclose(output["data"], [number_of(record), 100, 200], atol=0.01)
            assert record["ms"] > 0 and 1 <= record["batch_size"] <= 8
            assert record["timings"]["execute_us"] > 0 and record["timings"]["fill_us"] > 0


def test_every_file_has_its_record_in_order(server, folder):
    done = mapped(server, folder / "**" / "*.png")
    assert done.returncode == 3, done.stderr  # One has failed.
    found = records(done.stdout)
    assert [number_of(record) for record in found] == list(range(COUNT))
    assert_right(found, range(COUNT))
    assert "60 files in " in done.stderr and "1 failed" in done.stderr


def test_unordered_records_are_the_same(server, folder):
    found = records(mapped(server, folder / "**" / "*.png", "--unordered").stdout)
    assert_right(found, range(COUNT))


def test_sources_are_files_folders_patterns_and_lists(server, folder, tmp_path):
    one, two = folder / "0" / "003.png", folder / "2" / "041.png"
    (tmp_path / "list").write_text(f"{two}\n\n{one}\n")
    for sources, stdin, numbers in (
            ([one, two], None, [3, 41]), ([folder / "0"], None, range(20)),
            ([folder / "*" / "?41.png"], None, [41]), ([f"@{tmp_path / 'list'}"], None, [41, 3]),
            (["-"], f"{one}\n{two}\n", [3, 41]),
            (["@/dev/stdin"], f"{two}\n{one}\n", [41, 3])):  # Which can be read only once.
        done = mapped(server, *sources, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert [number_of(record) for record in records(done.stdout)] == list(numbers)
    nothing = mapped(server, folder / "*.jpg")
    assert nothing.returncode == 1 and "names no file" in nothing.stderr
    missing = mapped(server, tmp_path / "missing-001.png", one)
    assert missing.returncode == 3
    assert [("error" in record) for record in records(missing.stdout)] == [True, False]


def test_json_is_one_array_and_csv_a_table(server, folder, tmp_path):
    mapped(server, folder / "1", "--format", "json", "--output", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert_right([each for each in found if each["file"].endswith(".png")], range(20, 40))
    mapped(server, folder / "1", "--format", "csv", "--output", tmp_path / "a.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [row["file"][-7:] for row in rows][5:7] == ["025.png", "026.png"]
    assert "INVALID_ARGUMENT" in rows[5]["error"] and rows[6]["error"] == ""
    assert [float(each) for each in rows[6]["OUTPUT__0"].split(";")] == pytest.approx([26, 100, 200])
    empty = mapped(server, "-", "--format", "json", stdin="")
    assert (empty.returncode, json.loads(empty.stdout)) == (0, [])


def test_classes_and_saved_tensors(server, folder, tmp_path):
    best = records(mapped(server, folder / "2" / "050.png", "--top-k", 2).stdout)
    assert best[0]["outputs"][0]["data"] == ["200.000000:2", "100.000000:1"]
    saved = records(mapped(server, folder / "2" / "050.png", "--save", tmp_path / "tensors").stdout)
    path = saved[0]["outputs"][0]["file"]
    np.testing.assert_allclose(np.load(path), [[50, 100, 200]], atol=0.01)


def test_arrays_are_sent_to_models_that_take_no_pictures(server, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(16, dtype=np.float32))
    (tmp_path / "b.json").write_text(json.dumps(list(range(16))))
    (tmp_path / "c.txt").write_text("x")
    done = run("-u", server.address, "--model", "identity", tmp_path)
    found = records(done.stdout)
    assert [each["outputs"][0]["data"] for each in found[:2]] == [list(range(16))] * 2
    assert "expected a .npy or .json file" in found[2]["error"]["message"]


def test_only_the_outputs_that_are_wanted(server, folder):
    picture = folder / "0" / "003.png"
    [record] = records(mapped(server, picture, "--want", "OUTPUT__0").stdout)
    assert [output["name"] for output in record["outputs"]] == ["OUTPUT__0"]
    [record] = records(mapped(server, picture, "--want", "none").stdout)
    assert record["error"]["code"] == "INVALID_ARGUMENT" and "none" in record["error"]["message"]


def test_classes_have_their_labels(tmp_path, folder):
    """Of a server of its own."""
    models = make_repository(tmp_path, [Entry("channel_means", config=PICTURES)])
    (models / "channel_means" / "labels.txt").write_text("red\ngreen\nblue\n")
    config = models / "channel_means" / "config.pbtxt"
    text, count = re.subn(r'(name: *"OUTPUT__0")', r'\1 label_filename: "labels.txt"',
                          config.read_text())
    assert count == 1
    config.write_text(text)
    done = run(folder / "2" / "050.png", "--repository", models, "--model", "channel_means",
               "--top-k", 1)
    [record] = records(done.stdout)
    assert record["outputs"][0]["data"] == ["200.000000:2:blue"], done.stderr


def test_many_files_take_little_memory(server, tmp_path):
    """A hundred thousand that aren't there: each a record, none of them kept."""
    count = 100_000
    (tmp_path / "list").write_text("".join(f"/missing/{n:09}.png\n" for n in range(count)))
    output = tmp_path / "out.jsonl"
    command = [BIN / "millrace", "map", "-u", server.address, "--model", "channel_means",
               f"@{tmp_path / 'list'}", "--output", output]
    peak = 0  # KiB
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None:
            status = pathlib.Path(f"/proc/{running.pid}/status").read_text()
            if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
                peak = int(found[1])
            time.sleep(0.02)
    assert running.returncode == 3
    with output.open() as lines:
        assert sum('"NOT_FOUND"' in line for line in lines) == count
    assert 0 < peak < 100 << 10


def test_run_is_resumed_without_redoing_or_duplicating(server, folder, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = [folder / "**" / "*.png", "--output", output]
    mapped(server, *arguments)
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:17]) + lines[17][:30])  # Interrupted in the middle of one.
    refused = mapped(server, *arguments)
    assert refused.returncode == 1 and "--resume" in refused.stderr
    done = mapped(server, *arguments, "--resume")
    assert "43 files in " in done.stderr and "17 from before" in done.stderr
    assert output.read_bytes().splitlines()[:17] == whole.splitlines()[:17]
    assert_right(records(output.read_text()), range(COUNT))
    assert "0 files in " in mapped(server, *arguments, "--resume").stderr
    replaced = mapped(server, *arguments, "--overwrite")
    assert replaced.returncode == 3 and len(records(output.read_text())) == COUNT


@pytest.mark.parametrize("form", ["json", "csv"])
def test_arrays_and_tables_are_resumed_too(server, folder, tmp_path, form):
    """Wherever the earlier run ended, and with line ends in the names of files."""
    odd = folder / "0" / "one\nmore 003.png"
    odd.write_bytes((folder / "0" / "003.png").read_bytes())
    paths = [folder / "0" / "001.png", odd, folder / "0" / "002.png"]
    output = tmp_path / "out"
    arguments = [*paths, "--output", output, "--format", form]
    assert mapped(server, *arguments).returncode == 0
    odd.unlink()  # It isn't read again where it has a record.

    def files():
        text = output.read_text()
        return ([each["file"] for each in json.loads(text)] if form == "json" else
                [row["file"] for row in csv.DictReader(io.StringIO(text, newline=""))])
    whole = output.read_bytes()
    assert files() == [str(path) for path in paths]
    kept_odd = whole.rindex(str(paths[2]).encode()) - (len('{"file":"') if form == "json" else 0)
    for cut in (0, 1, 2, 12, kept_odd - 1, kept_odd, *range(len(whole) - 3, len(whole) + 1)):
        output.write_bytes(whole[:cut])
        done = mapped(server, *arguments, "--resume")
        assert done.returncode == (0 if cut >= kept_odd else 3), (cut, done.stderr)
        assert files() == [str(path) for path in paths], cut


def test_what_cant_be_resumed_is_refused(server, folder, tmp_path):
    other = tmp_path / "other"
    other.write_text("not a record\n")
    columns = tmp_path / "columns.csv"
    columns.write_text("file,error,SOMETHING\n")
    for arguments in (["--format", "json", "--output", other], [], ["--output", other],
                      ["--format", "csv", "--output", columns]):
        done = mapped(server, folder / "0", "--resume", *arguments)
        assert done.returncode == 1 and "can" in done.stderr and "resumed" in done.stderr
    assert other.read_text() == "not a record\n"
    assert columns.read_text() == "file,error,SOMETHING\n"


@pytest.mark.parametrize("order", [[], ["--unordered"]], ids=["ordered", "unordered"])
def test_interrupt_leaves_a_file_that_can_be_resumed(server, folder, tmp_path, order):
    output = tmp_path / "out.jsonl"
    paths = [str(folder / "0" / f"{number:03}.png") for number in range(20)]
    command = [BIN / "millrace", "map", "-u", server.address, "--model", "channel_means", "-",
               "--output", output, "--window", "4", *order]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as running:
        running.stdin.write("\n".join(paths[:10]) + "\n")
        running.stdin.flush()
        deadline = time.monotonic() + 60
        while not output.exists() or len(output.read_text().splitlines()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)  # While it waits for more on stdin.
        assert running.wait(60) == 130
    found = records(output.read_text())
    assert 3 <= len(found) <= 10
    done = mapped(server, *paths, "--output", output, "--resume")
    assert done.returncode == 0
    assert_right(records(output.read_text()), range(20))


def test_server_of_its_own(repository, folder):
    done = run(folder / "0", "--repository", repository, "--model", "channel_means")
    assert done.returncode == 0, done.stderr
    assert_right(records(done.stdout), range(20))


def test_interrupt_while_its_own_server_starts_leaves_nothing_behind(repository, tmp_path):
    command = [BIN / "millrace", "map", "-", "--repository", repository, "--model",
               "channel_means"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={"TMPDIR": str(tmp_path)}) as running:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("millrace-*/log")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    assert not list(tmp_path.iterdir())


def test_server_that_goes_away_leaves_the_rest_for_later(tmp_path, repository, folder):
    output = tmp_path / "out.jsonl"
    with Server(tmp_path, repositories=[repository]) as server:
        with server.frozen_replicas():
            command = [BIN / "millrace", "map", "-u", server.address, "--model", "channel_means",
                       folder / "0", "--output", output]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
                deadline = time.monotonic() + 60
                while server.metric("millrace_in_flight_requests", model="channel_means") < 20:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                server.kill()
                _, errors = running.communicate(timeout=120)
        assert running.returncode in (2, 3) and "20 unfinished" in errors
    assert output.read_text() == ""
