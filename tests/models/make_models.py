#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the model repositories of the integration tests and the benchmarks.

    python tests/models/make_models.py --into build/models

writes the repositories build/models/good, bad, bench, delay, lifecycle and video; what is there already and
newer than these scripts stays. README.md lists the models.
"""

import argparse
import dataclasses
import os
import pathlib
import shutil
import tempfile
import warnings
from typing import Callable, Dict, Sequence, Tuple

import modules
import torch
from torch import nn

DTYPES = {
    "BOOL": torch.bool, "UINT8": torch.uint8, "INT8": torch.int8, "INT16": torch.int16,
    "INT32": torch.int32, "INT64": torch.int64, "FP16": torch.float16, "BF16": torch.bfloat16,
    "FP32": torch.float32, "FP64": torch.float64,
}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    name: str
    dtype: str  # A key of DTYPES.
    dims: Sequence[int]  # Without the batch dimension; -1 is any size.


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of the repositories: what it computes, and what its config.pbtxt says."""

    name: str
    versions: Dict[str, Callable[[], nn.Module]]
    inputs: Sequence[TensorSpec]  # In the order of the config.
    outputs: Sequence[TensorSpec]  # In the order of the config, which is the model's own.
    max_batch_size: int = 8
    folders: Sequence[str] = ("good",)
    platform: str = "pytorch_libtorch"
    arguments: Sequence[str] = ()  # forward()'s, where they are not in the order of the config.
    threads: int = 1  # What an AOTInductor package is compiled for.
    config: str = ""  # Further lines of the config.

    @property
    def file_name(self) -> str:
        return "model.pt2" if self.platform == "torch_aoti" else "model.pt"

    def module(self, version: str = "1") -> nn.Module:
        """Returns the network in Python, with the very weights that the file has."""
        torch.manual_seed(20240731)
        return self.versions[version]().eval()

    def config_text(self) -> str:
        def tensors(kind: str, specs: Sequence[TensorSpec]) -> str:
            return "\n".join(
                f'{kind} [ {{ name: "{s.name}" data_type: TYPE_{s.dtype} '
                f'dims: [ {", ".join(map(str, s.dims))} ] }} ]' for s in specs)

        batching = "dynamic_batching { }\n" if "dynamic_batching" not in self.config else ""
        return (f'name: "{self.name}"\n'
                f'platform: "{self.platform}"\n'
                f"max_batch_size: {self.max_batch_size}\n"
                f"{tensors('input', self.inputs)}\n"
                f"{tensors('output', self.outputs)}\n"
                f"{batching if self.max_batch_size else ''}{self.config}")


def one_to_one(name: str, module: Callable[[], nn.Module], dims: Sequence[int],
               result: Sequence[int] = (), dtype: str = "FP32", **more) -> Model:
    """A model of one tensor in and one out, under the names that Triton takes by position."""
    return Model(name, {"1": module}, [TensorSpec("INPUT__0", dtype, dims)],
                 [TensorSpec("OUTPUT__0", dtype, result or dims)], **more)


def delay(name: str, setup_us: float, row_us: float, max_batch_size: int,
          dims: Sequence[int] = (4,)) -> Model:
    """A model that takes a known time and leaves the core free; only the tests' worker has it."""
    return one_to_one(name, lambda: modules.Delay(setup_us, row_us), dims, folders=("delay",),
                      max_batch_size=max_batch_size)


WARMUP = """\
model_warmup [
  {
    name: "zeros"
    batch_size: 1
    inputs { key: "values" value { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true } }
    inputs { key: "ids" value { data_type: TYPE_INT64 dims: [ 2 ] zero_data: true } }
  },
  {
    name: "random"
    batch_size: 4
    count: 2
    inputs { key: "values" value { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } }
    inputs { key: "ids" value { data_type: TYPE_INT64 dims: [ 2 ] random_data: true } }
  }
]
"""

def frame_number(name: str, dtype: str, dims: Sequence[int], top: int, **more) -> Model:
    return Model(name, {"1": lambda: modules.FrameNumber(top, planar=dims[0] == 3)},
                 [TensorSpec("frames", dtype, dims)],
                 [TensorSpec("number", "INT32", [1]), TensorSpec("boxes", "FP32", [2, 4]),
                  TensorSpec("scores", "FP32", [2]), TensorSpec("count", "INT32", [1])],
                 folders=("video",), **more)


MODELS: Sequence[Model] = (
    one_to_one("identity", modules.Identity, [16], max_batch_size=32, folders=("good", "bench")),
    one_to_one("tiny_mlp", lambda: modules.Mlp(32, 64, 8), [32], [8], max_batch_size=32,
               folders=("good", "bench"),
               config="dynamic_batching { preferred_batch_size: [ 8, 16 ] }\n"),
    one_to_one("large_mlp", lambda: modules.Mlp(1024, 4096, 4096, 1000), [1024], [1000],
               max_batch_size=16, folders=("bench",)),
    one_to_one("resnet18", modules.ResNet18, [3, 224, 224], [1000], folders=("bench",)),
    one_to_one("transformer", lambda: modules.Transformer(256, 4, 4, 16), [64, 256], [16],
               max_batch_size=16, folders=("bench",)),
    Model("two_in_two_out", {"1": modules.TwoInTwoOut},
          [TensorSpec("ids", "INT64", [2]), TensorSpec("values", "FP32", [4])],
          [TensorSpec("shifted", "FP32", [4]), TensorSpec("doubled", "INT64", [2])],
          arguments=("values", "ids"), config=WARMUP),
    Model("dict_out", {"1": modules.DictOut}, [TensorSpec("x", "FP32", [6])],
          [TensorSpec("sorted", "FP32", [6]), TensorSpec("total", "FP32", [1])]),
    Model("list_out", {"1": modules.ListOut}, [TensorSpec("INPUT__0", "FP32", [3])],
          [TensorSpec(f"OUTPUT__{i}", "FP32", [3]) for i in range(3)],
          config='parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "1" } }\n'),
    one_to_one("pixels", modules.Identity, [3, 48, 64]),
    one_to_one("channel_means", modules.ChannelMeans, [3, 48, 64], [3]),
    one_to_one("conv_net", modules.ConvNet, [3, 16, 16], [4]),
    Model("how_it_runs", {"1": modules.HowItRuns}, [TensorSpec("INPUT__0", "FP32", [3, 6, 8])],
          [TensorSpec("OUTPUT__0", "INT32", [2])]),
    one_to_one("only_precise", modules.OnlyPrecise, [4]),
    one_to_one("flattened_by_view", modules.FlattenedByView, [2, 3, 4], [24]),
    one_to_one("flattened_as_it_lies", modules.FlattenedAsItLies, [2, 3, 4], [24]),
    one_to_one("fork_model", modules.Forking, [16]),
    Model("slow", {"1": modules.Slow}, [TensorSpec("loops", "INT32", [1])],
          [TensorSpec("done", "INT32", [1])]),
    one_to_one("raises", modules.Raises, [4]),
    Model("crashes", {"1": modules.Crashes}, [TensorSpec("crash", "INT32", [1])],
          [TensorSpec("survived", "INT32", [1])]),
    one_to_one("dynamic", modules.RunningSum, [-1]),
    Model("no_batch", {"1": modules.Transposed}, [TensorSpec("matrix", "FP32", [2, 3])],
          [TensorSpec("transposed", "FP32", [3, 2])], max_batch_size=0),
    Model("int_embedding", {"1": modules.Lookup}, [TensorSpec("ids", "INT64", [5])],
          [TensorSpec("vectors", "FP32", [5, 4])]),
    Model("versions", {"1": lambda: modules.Add(1), "2": lambda: modules.Add(2)},
          [TensorSpec("INPUT__0", "FP32", [4])], [TensorSpec("OUTPUT__0", "FP32", [4])],
          config="version_policy { all { } }\n"),
    *(one_to_one(f"dtypes_{dtype.lower()}", modules.Identity, [3], dtype=dtype)
      for dtype in DTYPES),
    one_to_one("mlp_pt", lambda: modules.Mlp(64, 512, 10), [64], [10]),
    one_to_one("mlp_pt2", lambda: modules.Mlp(64, 512, 10), [64], [10], platform="torch_aoti"),
    one_to_one("mlp_pt2_threads2", lambda: modules.Mlp(64, 512, 10), [64], [10], threads=2,
               platform="torch_aoti"),
    # Which frame is it? As pixels, and as pictures that are put into the middle of a square.
    frame_number("numbered_pixels", "UINT8", [240, 320, 3], top=0),
    frame_number("numbered_pictures", "FP32", [3, 320, 320], top=40, config=(
        "millrace { transform { image { fit: LETTERBOX formats: [ JPEG, RAW_RGB, RAW_BGR ] } } }\n")),
    delay("delay_setup", 5000.0, 100.0, 64),
    delay("delay_light", 300.0, 100.0, 64),
    delay("delay_rows", 1000.0, 4000.0, 8),
    delay("delay_flat", 20_000.0, 0.0, 8),
    delay("delay_frame", 50_000.0, 0.0, 1, dims=[-1]),
    delay("delay_long", 500_000.0, 0.0, 1),
    delay("delay_pixels", 50_000.0, 0.0, 1, dims=[3, 48, 64]),
    # What is deployed while a server runs.
    Model("release", {str(n): lambda n=n: modules.Release(100.0 * n) for n in (1, 2, 3)},
          [TensorSpec("INPUT__0", "FP32", [4])], [TensorSpec("OUTPUT__0", "FP32", [4])],
          folders=("lifecycle",)),
    one_to_one("crashes_always", modules.CrashesAlways, [4], folders=("lifecycle",)),
    one_to_one("centred", modules.Centred, [4], folders=("lifecycle",)),
    one_to_one("noisy", modules.Noisy, [4], folders=("lifecycle",)),
    # What must fail to load, each with a reason that says what to do.
    one_to_one("wrong_config", modules.Identity, [4], [8], folders=("bad",)),
    one_to_one("wrong_count", modules.ListOut, [3], folders=("bad",)),
    one_to_one("wrong_rows", modules.MeanOverBatch, [4], folders=("bad",)),
    one_to_one("bad_field", modules.Identity, [4], folders=("bad",),
               config="max_batch_sizes: 4\n"),
    one_to_one("no_config", modules.Identity, [4], folders=("bad",)),
    one_to_one("broken", modules.Identity, [4], folders=("bad",)),
)


def save_torchscript(module: nn.Module, path: pathlib.Path) -> None:
    torch.jit.script(module).save(str(path))


def save_aotinductor(model: Model, module: nn.Module, path: pathlib.Path) -> None:
    """Compiles the module for batches of 1 to max_batch_size rows."""
    # A convolution that is exported for up to 16 rows takes 16 only, see export_module().
    most = model.max_batch_size + (model.max_batch_size == 16)
    example = torch.zeros(model.max_batch_size, *model.inputs[0].dims)
    batch = torch.export.Dim("batch", min=1, max=most)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs={
                "cpp.threads": model.threads, "aot_inductor.check_lowerbound": False})


def write_model(model: Model, folder: pathlib.Path) -> None:
    """Writes config.pbtxt and every version's file into `folder`, which must not exist."""
    for version in model.versions:
        path = folder / version / model.file_name
        path.parent.mkdir(parents=True)
        if model.name == "broken":
            path.write_bytes(b"This is not a model.\n" * 100)
        elif model.platform == "torch_aoti":
            save_aotinductor(model, model.module(version), path)
        else:
            save_torchscript(model.module(version), path)
    if model.name != "no_config":
        (folder / "config.pbtxt").write_text(model.config_text())


def make_models(into: pathlib.Path) -> None:
    """Writes every model that is missing or older than what makes it."""
    makers = [__file__, modules.__file__, torch.version.__file__]
    newest = max(os.path.getmtime(maker) for maker in makers)
    into.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        for folder in (into / name / model.name for name in model.folders):
            if folder.exists() and folder.stat().st_mtime > newest:
                continue
            # Written aside and renamed, so that what is there is always whole.
            with tempfile.TemporaryDirectory(dir=into, prefix=".making-") as aside:
                write_model(model, pathlib.Path(aside) / model.name)
                shutil.rmtree(folder, ignore_errors=True)
                folder.parent.mkdir(exist_ok=True)
                os.rename(pathlib.Path(aside) / model.name, folder)
            print(f"made {folder}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the models of the tests and benchmarks.")
    parser.add_argument("--into", required=True, type=pathlib.Path, metavar="DIR")
    for category in (DeprecationWarning, FutureWarning):  # TorchScript is; torch warns itself.
        warnings.filterwarnings("ignore", category=category)
    make_models(parser.parse_args().into)


if __name__ == "__main__":
    main()
