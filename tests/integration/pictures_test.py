# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures in place of tensors: what stock clients send, what comes of it, and what is refused."""

import io
import os
import pathlib
import random
import re

import client
import numpy as np
import pytest
import tritonclient.grpc
from grpc import StatusCode
from PIL import Image
from server_process import TEST_WORKER, Entry, Server, eventually
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

HEIGHT, WIDTH = 48, 64
IMAGE = "scale: 0.00392156862745098 mean: [0.485, 0.456, 0.406] std: [0.229, 0.224, 0.225]"
RAW = "formats: [JPEG, PNG, WEBP, RAW_RGB, RAW_NV12]"


def transform(image):
    return f"millrace {{ transform {{ image {{ {image} }} }} }}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    entries = [Entry("pixels", config=transform(IMAGE)),
               Entry("pixels", "boxed", config=transform(f"fit: LETTERBOX fill: 0 {RAW}")),
               Entry("pixels", "small", config=transform("most_pixels: 100000")),
               Entry("channel_means", config=transform("")),
               Entry("delay_pixels", config=transform(""))]
    for entry in entries:
        entry.write(folder / "repository")
    labelled = folder / "repository" / "channel_means"
    config = labelled / "config.pbtxt"
    config.write_text(re.sub(r'(output \[ \{ .*?)\} \]', r'\1label_filename: "colours.txt" } ]',
                             config.read_text()))
    (labelled / "colours.txt").write_text("red\ngreen\nblue\n")
    with Server(folder, repositories=[folder / "repository"],
                flags=["--worker", TEST_WORKER]) as running:
        yield running


@pytest.fixture(scope="module")
def stock(server):
    with tritonclient.grpc.InferenceServerClient(server.address) as opened:
        yield opened


def picture(seed=0, width=200, height=150):
    """Smooth colours, another picture for every seed."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    phase = np.random.default_rng(seed).uniform(0, 6, (3, 3))
    channels = [np.sin(4 * x + a) + np.cos(3 * y + b) + np.sin(5 * x * y + c) for a, b, c in phase]
    return Image.fromarray(np.uint8(127.5 + 42 * np.stack(channels, axis=-1)))


def file_of(image, kind="PNG", **options):
    to = io.BytesIO()
    image.save(to, kind, **options)
    return to.getvalue()


def stretched(image):
    """What the transform of `pixels` makes of a picture, by Pillow."""
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    normal = np.float32(small) / 255 - np.float32([0.485, 0.456, 0.406])
    return (normal / np.float32([0.229, 0.224, 0.225])).transpose(2, 0, 1)


def stock_input(*files):
    array = np.empty((len(files), 1), dtype=np.object_)
    array[:, 0] = files
    tensor = tritonclient.grpc.InferInput("INPUT__0", array.shape, "BYTES")
    tensor.set_data_from_numpy(array)
    return tensor


def raw_request(model, files, parameters=None, *, id=""):
    message = service_pb2.ModelInferRequest(model_name=model, id=id)
    message.inputs.add(name="INPUT__0", datatype="BYTES", shape=[len(files), 1])
    message.raw_input_contents.append(b"".join(
        len(file).to_bytes(4, "little") + file for file in files))
    for key, value in (parameters or {}).items():
        kind = {int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(message.parameters[key], kind, value)
    return message


def only_output(response):
    [raw] = response.raw_output_contents
    return np.frombuffer(raw, np.float32).reshape(response.outputs[0].shape)


def number(response, name):
    parameter = response.parameters[name]
    return getattr(parameter, parameter.WhichOneof("parameter_choice"))


def assert_close(got, expected, levels):
    """`levels` of 255, of the channel with the largest factor."""
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= levels / 255 / 0.224 + 1e-5


def test_stock_client_sends_files_and_gets_what_pillow_makes_of_them(stock):
    pictures = [picture(seed) for seed in range(3)]
    files = [file_of(pictures[0]), file_of(pictures[1], "WEBP", lossless=True, exact=True),
             file_of(pictures[2], "PNG")]
    got = stock.infer("pixels", [stock_input(*files)]).as_numpy("OUTPUT__0")
    assert_close(got, np.stack([stretched(each) for each in pictures]), 1)


def test_jpeg_is_near_to_what_pillow_makes_of_it(stock):
    jpeg = file_of(picture(4, 1600, 1200), "JPEG", quality=90)
    got = stock.infer("pixels", [stock_input(jpeg)]).as_numpy("OUTPUT__0")
    assert_close(got[0], stretched(Image.open(io.BytesIO(jpeg)).convert("RGB")), 4)


def test_stock_client_gets_classes(stock):
    reddish = file_of(Image.new("RGB", (90, 70), (200, 100, 50)), "JPEG", quality=95)
    wanted = tritonclient.grpc.InferRequestedOutput("OUTPUT__0", class_count=2)
    got = stock.infer("channel_means", [stock_input(reddish)], outputs=[wanted])
    classes = [each.decode().split(":") for each in got.as_numpy("OUTPUT__0").reshape(-1)]
    assert [(index, label) for _, index, label in classes] == [("0", "red"), ("1", "green")]
    assert abs(float(classes[0][0]) - 200) < 3 and got.as_numpy("OUTPUT__0").shape == (1, 2)


def test_metadata_says_what_to_send(stock):
    [written] = stock.get_model_config("pixels").config.input  # What the model itself takes.
    assert list(written.dims) == [3, 48, 64]
    [tensor] = stock.get_model_metadata("pixels").inputs
    assert (tensor.datatype, list(tensor.shape)) == ("BYTES", [-1, 1])


def test_typed_contents_are_taken_too(server):
    image = picture(5)
    message = service_pb2.ModelInferRequest(model_name="pixels")
    tensor = message.inputs.add(name="INPUT__0", datatype="BYTES", shape=[2, 1])
    tensor.contents.bytes_contents.extend([file_of(image), file_of(image)])
    got = only_output(server.stub.ModelInfer(message))
    assert_close(got, np.stack([stretched(image)] * 2), 1)


def test_answer_tells_how_to_map_boxes_back(server):
    image = Image.new("RGB", (200, 100), (10, 20, 30))
    image.paste((250, 0, 0), (60, 20, 100, 60))  # x 60 to 100, y 20 to 60.
    response = server.stub.ModelInfer(raw_request("boxed", [file_of(image)]))
    assert (number(response, "millrace_image_width"), number(response, "millrace_image_height")) \
        == (200, 100)
    rows, columns = np.nonzero(only_output(response)[0, 0] > 128)
    x, y = ((edge - number(response, f"millrace_image_offset_{axis}"))
            / number(response, f"millrace_image_scale_{axis}")
            for axis, edge in (("x", columns.min()), ("y", rows.min())))
    assert abs(x - 60) <= 4 and abs(y - 20) <= 4  # Within a pixel of the row.


def test_raw_pixels_are_taken(server):
    pixels = np.full((HEIGHT, WIDTH, 3), (9, 8, 7), np.uint8)
    message = service_pb2.ModelInferRequest(model_name="boxed")
    message.inputs.add(name="INPUT__0", datatype="UINT8", shape=[1, HEIGHT, WIDTH, 3])
    message.raw_input_contents.append(pixels.tobytes())
    assert only_output(server.stub.ModelInfer(message))[0, :, 0, 0].tolist() == [9, 8, 7]
    nv12 = bytes([235]) * (HEIGHT * WIDTH) + bytes([128]) * (HEIGHT * WIDTH // 2)
    request = raw_request("boxed", [nv12], {
        "millrace_image_format": "NV12", "millrace_image_width": WIDTH,
        "millrace_image_height": HEIGHT})
    assert only_output(server.stub.ModelInfer(request)).min() == 255


@pytest.mark.parametrize(("model", "file", "text"), [
    ("pixels", b"", "no bytes came"),
    ("pixels", b"no picture at all", "JPEG, PNG"),
    ("pixels", file_of(picture())[:-40], "PNG"),
    ("pixels", file_of(picture(), "JPEG")[:2000], "JPEG"),
    ("pixels", file_of(picture(), "BMP"), "JPEG, PNG"),
    ("small", file_of(picture(0, 400, 300)), "pixels"),
], ids=["empty", "text", "torn PNG", "torn JPEG", "BMP", "too large"])
def test_bad_file_fails_its_request_alone(server, model, file, text):
    good = file_of(picture(0, 40, 30))
    stream = client.Stream(server.stub)
    for index in range(9):
        stream.send(raw_request(model, [file if index % 3 == 1 else good], id=str(index)))
    answers = stream.rest()
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(9)]
    for index, answer in enumerate(answers):
        bad = index % 3 == 1
        assert client.status_of(answer) == (StatusCode.INVALID_ARGUMENT if bad else StatusCode.OK)
        if bad:
            assert "picture 0: " in answer.error_message and text in answer.error_message
    error = client.error_of(lambda: server.stub.ModelInfer(raw_request(model, [good, file])))
    assert error.code() == StatusCode.INVALID_ARGUMENT and "picture 1: " in error.details()


def test_format_that_is_not_accepted_is_refused_by_name(server, stock):
    request = raw_request("pixels", [bytes(WIDTH * HEIGHT * 3)], {
        "millrace_image_format": "RGB", "millrace_image_width": WIDTH,
        "millrace_image_height": HEIGHT})
    assert "RGB" in client.error_of(lambda: server.stub.ModelInfer(request)).details()
    tensor = tritonclient.grpc.InferInput("INPUT__0", [1, 3, HEIGHT, WIDTH], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3, HEIGHT, WIDTH), np.float32))
    with pytest.raises(InferenceServerException, match="expected 'BYTES' for pictures"):
        stock.infer("pixels", [tensor])


def test_echoes_come_back_with_answers_and_errors(server):
    def answer(file, **parameters):
        stream = client.Stream(server.stub)
        stream.send(raw_request("pixels", [file], parameters))
        return stream.rest()[0].infer_response
    good = answer(file_of(picture()), millrace_echo_pts=1.25, millrace_echo_frame=7, other="x")
    assert (number(good, "millrace_echo_pts"), number(good, "millrace_echo_frame")) == (1.25, 7)
    assert "other" not in good.parameters
    for bad in (b"", file_of(picture())[:-30]):  # Refused before it is queued, and after.
        assert number(answer(bad, millrace_echo_frame=8), "millrace_echo_frame") == 8


def test_stages_are_measured(server):
    def counts():
        return [server.metric(f"millrace_transform_{stage}_seconds_count", model="pixels")
                for stage in ("wait", "decode", "resize")]
    before = counts()
    request = raw_request("pixels", [file_of(picture()), file_of(picture())])
    request.parameters["millrace_timings"].bool_param = True
    response = server.stub.ModelInfer(request)
    assert number(response, "millrace_transform_us") > 0
    eventually(lambda: counts() == [count + 2 for count in before])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core isn't shared out")
def test_cores_go_to_the_stage_that_needs_them(server):
    def send(model, file):
        stream = client.Stream(server.stub)
        for _ in range(20):
            stream.send(raw_request(model, [file]))
        assert not any(answer.error_message for answer in stream.rest())
        return server.metric("millrace_transform_workers")
    budget = int(server.metric("millrace_cpu_budget_cores"))
    small, large = file_of(picture()), file_of(picture(5, 1600, 1200))
    eventually(lambda: send("delay_pixels", small) == 1)
    eventually(lambda: send("pixels", large) > 1 and
               server.metric("millrace_batch_cores") < budget)
    assert server.metric("millrace_transform_busy_seconds_total") > 0
    # No more pictures come: batches have all cores again.
    eventually(lambda: server.metric("millrace_batch_cores") == budget)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core isn't shared out")
def test_pinned_workers_leave_the_replicas_core_alone(tmp_path):
    Entry("pixels", replicas=1, config=transform("")).write(tmp_path / "repository")
    with Server(tmp_path, repositories=[tmp_path / "repository"],
                flags=["--pin", "--transform-workers", "1"]) as pinned:
        [replica] = pinned.replicas()
        [worker] = [int(task.name) for task in pathlib.Path(f"/proc/{pinned.pid}/task").iterdir()
                    if (task / "comm").read_text().strip() == "transform-0"]
        # Where it runs is heeded when there is something to do.
        pinned.stub.ModelInfer(raw_request("pixels", [file_of(picture())]))
        eventually(lambda: len(os.sched_getaffinity(worker)) == 1)
        assert os.sched_getaffinity(worker).isdisjoint(os.sched_getaffinity(replica))


def test_streams_of_pictures_stay_in_order_though_replicas_die(server):
    generator = random.Random(11)
    sizes = [(30, 20), (500, 400), (1200, 900)]
    files = [(seed, file_of(picture(seed, *size)), stretched(picture(seed, *size)))
             for seed, size in enumerate(sizes * 3)]
    streams = [client.Stream(server.stub) for _ in range(4)]
    sent = [[] for _ in streams]
    for index in range(40):
        for stream, chosen in zip(streams, sent):
            chosen.append(generator.choice(files))
            stream.send(raw_request("pixels", [chosen[-1][1]], id=str(index)))
        if index == 20:
            server.kill_a_replica(generator)
    for stream, chosen in zip(streams, sent):
        answers = stream.rest()
        assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(40)]
        for answer, (_, _, expected) in zip(answers, chosen):
            assert not answer.error_message
            assert_close(only_output(answer.infer_response)[0], expected, 1)
