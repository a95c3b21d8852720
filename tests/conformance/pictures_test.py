# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Compares what becomes of a picture with what Pillow, OpenCV and torch make of the same file.

docs/images.md states the tolerances that are asserted here, in levels of 0 … 255.
"""

import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("MILLRACE_BIN", ROOT / "build/bin")).parent / "tests/transform-file"
FILTERS = {"BILINEAR": Image.Resampling.BILINEAR, "AREA": Image.Resampling.BOX,
           "NEAREST": Image.Resampling.NEAREST}
DTYPES = {"UINT8": np.uint8, "FP32": np.float32, "FP16": np.float16}


def transform(path, width, height, layout="NHWC", order="RGB", type="UINT8", **fields):
    """Returns the row that Millrace makes of the file."""
    fields |= {"width": width, "height": height, "layout": layout, "order": order, "type": type}
    line = " ".join([str(path), *(f"{name}={value}" for name, value in fields.items())])
    done = subprocess.run([PROGRAM], input=line.encode(), capture_output=True, check=True)
    channels = 1 if order == "GRAY" else 3
    shape = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    return np.frombuffer(done.stdout, DTYPES[type]).reshape(shape)


def as_stored(path, picture, **fields):
    """Returns the file's pixels, decoded whole and not resized."""
    return transform(path, *picture.size, interpolation="NEAREST", **fields)


def difference(row, picture):
    """Returns how far apart pixels are: the mean and the most."""
    apart = np.abs(row.astype(np.float64) - np.asarray(picture).reshape(row.shape))
    return apart.mean(), apart.max()


@pytest.fixture(scope="module")
def frame():
    """A frame of a video: a real picture, 768x576."""
    reader = cv2.VideoCapture(str(ROOT / ".cache/vtest.avi"))
    found, pixels = reader.read()
    assert found
    return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


@pytest.fixture(scope="module")
def large(frame):
    """A picture of 1920x1080, with a camera's noise."""
    pixels = np.asarray(frame.resize((1920, 1440), Image.Resampling.LANCZOS)).astype(np.float64)
    noise = np.random.default_rng(1).normal(0, 4, pixels.shape[:2])[..., None]
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)[:1080])


def saved(folder, picture, name, **options):
    path = folder / name
    picture.save(path, **{"compress_level": 1, **options})
    return path


# ---- geometry and filters ----------------------------------------------------------------------

def letterboxed(picture, width, height, resample, fill=114):
    """As Ultralytics does it."""
    ratio = min(height / picture.height, width / picture.width)
    size = round(picture.width * ratio), round(picture.height * ratio)
    left, top = (round((side - inner) / 2 - 0.1) for side, inner in zip((width, height), size))
    row = Image.new("RGB", (width, height), (fill,) * 3)
    row.paste(picture.resize(size, resample), (left, top))
    return row


def center_cropped(picture, width, height, resample, shorter_side):
    """As torchvision's Resize(int) and CenterCrop do it."""
    short, long = sorted(picture.size)
    new_long = int(shorter_side * long / short)
    size = ((shorter_side, new_long) if picture.width <= picture.height
            else (new_long, shorter_side))
    resized = picture.resize(size, resample)
    left, top = (int(round((side - inner) / 2.0)) for side, inner in zip(size, (width, height)))
    return resized.crop((left, top, left + width, top + height))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(224, 224), (640, 640), (300, 417), (1000, 33), (768, 1)])
def test_a_png_is_stretched_as_by_pillow(tmp_path, frame, size, interpolation):
    row = transform(saved(tmp_path, frame, "a.png"), *size, interpolation=interpolation)
    expected = frame.resize(size, FILTERS[interpolation])
    assert difference(row, expected)[1] <= (0 if interpolation == "NEAREST" else 1)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("crop", [None, (500, 301), (99, 100), (3, 400)])
def test_a_png_is_letterboxed_as_by_ultralytics(tmp_path, frame, crop, interpolation):
    picture = frame.crop((40, 50, 40 + crop[0], 50 + crop[1])) if crop else frame
    path = saved(tmp_path, picture, "a.png")
    for size in (640, 640), (320, 417):
        row = transform(path, *size, fit="LETTERBOX", interpolation=interpolation)
        expected = letterboxed(picture, *size, FILTERS[interpolation])
        assert difference(row, expected)[1] <= (0 if interpolation == "NEAREST" else 1)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("crop", [None, (301, 500), (99, 100)])
@pytest.mark.parametrize("shorter_side", [224, 256])
def test_a_png_is_cropped_as_by_torchvision(tmp_path, frame, crop, interpolation, shorter_side):
    picture = frame.crop((40, 50, 40 + crop[0], 50 + crop[1])) if crop else frame
    row = transform(saved(tmp_path, picture, "a.png"), 224, 224, fit="CENTER_CROP",
                    shorter_side=shorter_side, interpolation=interpolation)
    expected = center_cropped(picture, 224, 224, FILTERS[interpolation], shorter_side)
    assert difference(row, expected)[1] <= (0 if interpolation == "NEAREST" else 1)


@pytest.mark.parametrize("size", [(224, 224), (640, 480), (1000, 800)])
def test_floats_are_those_of_torch(tmp_path, frame, size):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    fields = {"layout": "NCHW", "scale": repr(1 / 255), "mean": ",".join(map(str, mean)),
              "std": ",".join(map(str, std))}
    path = saved(tmp_path, frame, "a.png")
    pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1).double() / 255
    resized = torch.nn.functional.interpolate(
        pixels[None], size[::-1], mode="bilinear", antialias=True, align_corners=False)[0]
    expected = (resized - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert difference(transform(path, *size, type="FP32", **fields), expected)[1] < 2e-5
    half = transform(path, *size, type="FP16", **fields)
    assert difference(half, expected)[1] <= 2 ** -9  # Half of the last place below 4, and a little.


def test_channels_are_in_the_order_asked_for(tmp_path, frame):
    path = saved(tmp_path, frame, "a.png")
    pixels = np.asarray(frame)
    assert (as_stored(path, frame, order="BGR") == pixels[..., ::-1]).all()
    assert (as_stored(path, frame, layout="NCHW") == pixels.transpose(2, 0, 1)).all()
    gray = as_stored(path, frame, order="GRAY")
    assert (gray[..., 0] == np.asarray(frame.convert("L"))).all()


# ---- formats -----------------------------------------------------------------------------------

PNG_KINDS = ["1", "L", "LA", "P", "RGB", "RGBA", "RGB;tRNS", "P;tRNS", "P;4", "P;1", "L;tRNS"]


@pytest.mark.parametrize("kind", PNG_KINDS)
def test_every_kind_of_png_is_that_of_pillow(tmp_path, frame, kind):
    mode, _, more = kind.partition(";")
    picture = frame.crop((100, 100, 233, 177))
    options = {}
    if more.isdigit():
        picture, options = picture.quantize(2 ** int(more)), {"bits": int(more)}
    elif mode == "P":
        picture = picture.quantize(200)
    elif mode in ("LA", "RGBA"):
        picture = picture.convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture = picture.convert(mode)
    else:
        picture = picture.convert(mode)
    if more == "tRNS":
        options["transparency"] = {"RGB": picture.getpixel((0, 0)), "L": 99, "P": 7}[mode]
    path = saved(tmp_path, picture, "a.png", **options)
    expected = Image.open(path).convert("RGB")
    assert (as_stored(path, expected) == np.asarray(expected)).all()


def test_png_of_16_bits_gives_the_upper_8(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 1 << 16, (40, 30, 3)).astype(np.uint16)
    for name, values in ("color.png", pixels), ("gray.png", pixels[..., 0]):
        assert cv2.imwrite(str(tmp_path / name), values)
    color = transform(tmp_path / "color.png", 30, 40, interpolation="NEAREST", order="BGR")
    assert (color == pixels >> 8).all()
    gray = transform(tmp_path / "gray.png", 30, 40, interpolation="NEAREST")
    assert (gray == (pixels[..., :1] >> 8)).all()


JPEG_KINDS = {
    "4:4:4": {"subsampling": 0}, "4:2:2": {"subsampling": 1}, "4:2:0": {"subsampling": 2},
    "gray": {}, "CMYK": {}, "YCCK": {}, "progressive": {"progressive": True},
    "optimised": {"optimize": True, "quality": 40}, "restarts": {"restart_marker_rows": 1},
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_every_kind_of_jpeg_is_that_of_pillow(tmp_path, frame, kind):
    picture = frame.crop((0, 0, 701, 433))
    if kind == "gray":
        picture = picture.convert("L")
    elif kind in ("CMYK", "YCCK"):
        picture = picture.convert("CMYK")
    path = saved(tmp_path, picture, "a.jpg", **{"quality": 88, **JPEG_KINDS[kind]})
    if kind == "YCCK":  # Pillow writes none: the same numbers, said to be another kind.
        file = path.read_bytes()
        adobe = file.index(b"Adobe") + 11
        path.write_bytes(file[:adobe] + b"\x02" + file[adobe + 1:])
    expected = Image.open(path).convert("RGB")
    mean, most = difference(as_stored(path, expected), expected)
    assert mean < 0.01 and most <= 2  # Another version of libjpeg-turbo.


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"quality": 20}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_is_that_of_pillow(tmp_path, frame, mode, options):
    picture = frame.crop((0, 0, 301, 203)).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    path = saved(tmp_path, picture.convert(mode), "a.webp", exact=True, **options)
    expected = Image.open(path).convert("RGB")
    assert (as_stored(path, expected) == np.asarray(expected)).all()


@pytest.mark.parametrize("format", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(tmp_path, frame, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    path = saved(tmp_path, frame.crop((7, 9, 110, 77)), f"a.{format}", exif=exif, quality=90)
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert expected.size == ((68, 103) if orientation > 4 else (103, 68))
    assert difference(as_stored(path, expected), expected)[1] <= 2


@pytest.mark.parametrize("format", ["NV12", "I420", "RGB", "BGR", "GRAY"])
def test_raw_pixels_are_those_of_opencv(tmp_path, format):
    pixels = np.random.default_rng(3).integers(0, 256, (62 * 3 // 2, 42), np.uint8)
    if format == "NV12":
        expected = cv2.cvtColor(pixels, cv2.COLOR_YUV2RGB_NV12)
    elif format == "I420":
        expected = cv2.cvtColor(pixels, cv2.COLOR_YUV2RGB_I420)
    elif format == "GRAY":
        expected = np.repeat(pixels[..., None], 3, 2)
    else:
        pixels = expected = np.stack([pixels, pixels[::-1], pixels // 2], 2)
        if format == "BGR":
            expected = pixels[..., ::-1]
    path = tmp_path / "raw"
    path.write_bytes(np.ascontiguousarray(pixels).tobytes())
    height, width = expected.shape[:2]
    row = transform(path, width, height, format=format, raw_width=width, raw_height=height)
    assert (row == expected).all()


@pytest.mark.parametrize("name", ["baboon.jpg", "licenseplate_motion.jpg", "starry_night.jpg"])
def test_photographs_are_decoded_and_resized_as_by_pillow(name):
    path = ROOT / ".cache/pictures" / name
    photograph = Image.open(path).convert("RGB")
    assert difference(as_stored(path, photograph), photograph)[1] <= 2
    expected = photograph.resize((224, 224), Image.Resampling.BILINEAR)
    assert difference(transform(path, 224, 224, scaled=0), expected)[1] <= 2


# ---- decoding at a fraction of the size --------------------------------------------------------

@pytest.mark.parametrize("side", [75, 224, 300, 640])
@pytest.mark.parametrize("quality", [75, 95])
def test_a_jpeg_decoded_at_a_fraction_looks_as_the_whole_one(tmp_path, large, side, quality):
    path = saved(tmp_path, large, "a.jpg", quality=quality)
    decoded = Image.open(path).convert("RGB")
    for interpolation, bounds in ("BILINEAR", (0.9, 33)), ("AREA", (1.2, 43)):
        expected = letterboxed(decoded, side, side, FILTERS[interpolation])
        fields = {"fit": "LETTERBOX", "interpolation": interpolation}
        mean, most = difference(transform(path, side, side, **fields), expected)
        assert mean <= bounds[0] and most <= bounds[1], interpolation
        assert difference(transform(path, side, side, scaled=0, **fields), expected)[1] <= 2


def test_a_fraction_lies_where_the_whole_one_does(tmp_path):
    """A ramp of an odd width keeps its place: the last column of a fraction reaches too far."""
    for width, height in (1001, 701), (1003, 999), (1007, 1000):
        across, down = np.arange(width) / width * 255, np.arange(height) / height * 255
        pixels = np.stack(np.broadcast_arrays(across, down[:, None], 128.0), 2).round()
        picture = Image.fromarray(pixels.astype(np.uint8))
        path = saved(tmp_path, picture, "a.jpg", quality=100, subsampling=0)
        expected = picture.resize((100, 100), Image.Resampling.BILINEAR)
        mean, most = difference(transform(path, 100, 100), expected)
        assert mean < 0.6 and most <= 3
