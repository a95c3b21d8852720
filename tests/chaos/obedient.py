# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The models that chaos is made with: each does what the first number of a row orders, and adds a
number of its own, so that an answer says which model and version gave it."""

import shutil

import torch
import wire
from server_process import MODELS

LIMIT_SECONDS = 2  # For how long a batch may run.
SUPERVISION = f"supervision {{ execution_limit_microseconds: {LIMIT_SECONDS * 1_000_000}"
CONFIG = """\
platform: "pytorch_libtorch"
max_batch_size: {batch}
input [ {{ name: "INPUT__0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
output [ {{ name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
dynamic_batching {{ {batching} }}
instance_group [ {{ kind: KIND_CPU {count} }} ]
millrace {{ {supervision} {memory} }} {more} }}
"""
HOW = {  # What of the config differs.
    "work": {"count": "", "more": "replicas { min: 1 max: 2 }"},
    "narrow": {"count": "count: 1", "batch": 1,
               "batching": "default_queue_policy { max_queue_size: 4 }"},
    "hungry": {"count": "count: 1", "memory": "memory_limit_bytes: 1000000000000"},
    "release": {"count": "count: 1"},
    "lonely": {"count": "count: 1", "batch": 1},
    "wide": {"dims": wire.WIDE_COLUMNS},
}
SPINS = {"work": 20, "narrow": 10, "lonely": 20}  # About 0.1 ms each; others take no time.


class Obedient(torch.nn.Module):
    """Adds `amount` after `spins` rounds of work, unless a row orders otherwise."""

    def __init__(self, amount: float, spins: int, crash: float, hang: float, fill: float,
                 fail: float):
        super().__init__()
        self.amount, self.spins = amount, spins
        self.crash, self.hang, self.fill, self.fail = crash, hang, fill, fail

    def forward(self, x):
        orders = x[:, 0]
        if bool((orders == self.fail).any()):
            raise ValueError("this row orders an error")
        if bool((orders == self.crash).any()):
            far_away = torch.full([1, 1], 1 << 44, dtype=torch.int64)
            return torch.ops.aten._sparse_coo_tensor_unsafe(
                far_away, torch.ones(1), [1]).to_dense() + x
        if bool((orders == self.fill).any()):
            pieces = [x]
            for _ in range(1 << 12):
                pieces.append(x[0, 0].expand(1 << 24).clone())
            return x + pieces[-1][0]
        spins = 1 << 40 if bool((orders == self.hang).any()) else self.spins
        work = torch.full([10000], 0.5)
        for _ in range(spins):
            work = work.sin_().add_(0.1)
        return x + self.amount + 0 * work[0]


def save(amount, path, spins=0):
    path.parent.mkdir(parents=True)
    module = Obedient(float(amount), spins, **{
        name: wire.ORDERS[name] for name in ("crash", "hang", "fill", "fail")})
    torch.jit.script(module.eval()).save(str(path))


def write_repository(folder, kernel_kills):
    """The models of wire.AMOUNTS, version 1 of `release`, and a package. Where `kernel_kills`, no
    limit but the kernel's holds the model that fills memory."""
    for name, amount in wire.AMOUNTS.items():
        save(amount, folder / name / "1" / "model.pt", SPINS.get(name, 0))
        how = {"batch": 8, "batching": "", "count": "count: 2", "memory": "", "more": "",
               "dims": wire.COLUMNS}
        how |= HOW.get(name, {})
        if name == "hungry" and not kernel_kills:
            how["memory"] = ""
        (folder / name / "config.pbtxt").write_text(CONFIG.format(supervision=SUPERVISION, **how))
    shutil.copytree(MODELS / "good" / "mlp_pt2", folder / "mlp_pt2")
    config = folder / "mlp_pt2" / "config.pbtxt"
    config.write_text(config.read_text() + "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
                      f"millrace {{ {SUPERVISION} }} }}\n")
