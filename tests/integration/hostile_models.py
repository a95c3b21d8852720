# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Models that try what no model must be able to do: as AOTInductor packages with native code of
their own (tests/models/hostile_package.cc), and as TorchScript."""

import pathlib
import subprocess
import zipfile

import torch
from server_process import MODELS, ROOT

LIBRARIES = pathlib.Path(torch.__file__).parent / "lib"
CONFIG = """\
platform: "{platform}"
max_batch_size: 8
input [ {{ name: "INPUT__0" data_type: TYPE_FP32 dims: [ {inputs} ] }} ]
output [ {{ name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ {outputs} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{more}"""


def write_config(folder, platform, inputs, outputs, more=""):
    (folder / "config.pbtxt").write_text(
        CONFIG.format(platform=platform, inputs=inputs, outputs=outputs, more=more))


def write_package(folder, secret, name="hostile", more="", when_loaded=""):
    """The package `mlp_pt2` with hostile code before its own. `when_loaded`: what else that does
    then, FILLS_WHEN_LOADED or SPINS_WHEN_LOADED."""
    with zipfile.ZipFile(MODELS / "good" / "mlp_pt2" / "1" / "model.pt2") as package:
        files = {entry: package.read(entry) for entry in package.namelist()}
    code = next(entry for entry in files if entry.endswith(".so"))
    build = folder.parent / f"{folder.name}-{name}-build"
    build.mkdir()
    original, hostile = build / "original.bin", build / "hostile.so"
    original.write_bytes(files.pop(code))
    defines = [f'-DSECRET="{secret}"', *([f"-D{when_loaded}"] if when_loaded else [])]
    subprocess.run(["c++", "-shared", "-fPIC", "-O1", *defines, "-o", hostile,
                    ROOT / "tests" / "models" / "hostile_package.cc", f"-L{build}", f"-L{LIBRARIES}",
                    "-Wl,--no-as-needed", "-l:original.bin", "-ltorch_cpu",
                    "-Wl,-rpath,$ORIGIN"], check=True)
    files[code] = hostile.read_bytes()
    files[str(pathlib.PurePath(code).parent / "original.bin")] = original.read_bytes()
    version = folder / name / "1"
    version.mkdir(parents=True)
    with zipfile.ZipFile(version / "model.pt2", "w", zipfile.ZIP_STORED) as package:
        for entry, content in files.items():
            package.writestr(zipfile.ZipInfo(entry), content)
    write_config(folder / name, "torch_aoti", 64, 10, more)


class ReadsInForward(torch.nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x):
        if bool(x[0, 0] < 0):
            read = torch.from_file(self.path, shared=False, size=4, dtype=torch.uint8)
            return x + read.to(torch.float32)
        return x


class WritesInForward(torch.nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x):
        if bool(x[0, 0] < 0):
            written = torch.from_file(self.path, shared=True, size=4, dtype=torch.uint8)
            written.fill_(1)
            return x + written.to(torch.float32)
        return x


class FillsInForward(torch.nn.Module):
    def forward(self, x):
        if bool(x[0, 0] < 0):
            pieces = [x]
            for _ in range(1 << 12):
                pieces.append(x[0, 0].expand(1 << 24).clone())
            return x + pieces[-1][0]
        return x


class ReadsWhenLoaded(torch.nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.read = torch.zeros(4)

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        self.read = torch.from_file(state[0], shared=False, size=4,
                                    dtype=torch.uint8).to(torch.float32)

    def forward(self, x):
        return x + self.read


class FillsOrSpinsWhenLoaded(torch.nn.Module):
    def __init__(self, spins: bool):
        super().__init__()
        self.spins = spins
        self.piece = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self):
        return self.spins, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[bool, bool]):
        self.spins = state[0]
        self.training = state[1]
        pieces = [torch.ones(1)]
        turns = 0
        while self.spins or turns < 1 << 12:
            if not self.spins:
                pieces.append(torch.ones(1 << 24))
            turns += 1
        self.piece = pieces[-1][:1]

    def forward(self, x):
        return x + self.piece


def write_script(folder, name, module, more=""):
    version = folder / name / "1"
    version.mkdir(parents=True)
    torch.jit.script(module.eval()).save(str(version / "model.pt"))
    write_config(folder / name, "pytorch_libtorch", 4, 4, more)
