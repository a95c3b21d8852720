# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The networks of the test models. Every one of them can be scripted by TorchScript."""

from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

# What delay_operator.cc adds to the tests' worker; here it takes no time. With side effects, so
# that no optimisation leaves it out.
DELAY = torch.library.Library("millrace", "DEF")
DELAY.define("delay(Tensor x, float setup_us, float row_us) -> Tensor",
             alias_analysis="CONSERVATIVE")
DELAY.impl("delay", lambda x, setup_us, row_us: x, "CompositeExplicitAutograd")


class Identity(nn.Module):
    """Returns its very input, so that an output is an alias of the input's memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class ChannelMeans(nn.Module):
    """The mean of each channel of pictures: which of three colours they have most of."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=[2, 3])


class FrameNumber(nn.Module):
    """Reads the number that is drawn into frames of 320x240: 16 blocks of a bit each, from the most
    significant one on, in the upper quarter, and their opposites in the quarter below. Returns it,
    or -1 where they don't agree; and a box at a place that follows from it, with a score and a
    count. The frames lie `top` rows down in the input; `planar` says where its channels are."""

    def __init__(self, top: int, planar: bool):
        super().__init__()
        self.top = top
        self.planar = planar

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        grey = x.to(torch.float32).mean(dim=1 if self.planar else 3)
        quarters = grey[:, self.top:self.top + 120].reshape(-1, 2, 60, 16, 20)
        # The middle of each block: compression blurs its edges.
        bits = quarters[:, :, 16:44, :, 6:14].mean(dim=[2, 4]) > 128
        number = torch.zeros_like(bits[:, 0, 0], dtype=torch.int32)
        for i in range(16):
            number = 2 * number + bits[:, 0, i].to(torch.int32)
        agree = (bits[:, 0] != bits[:, 1]).all(dim=1)
        number = torch.where(agree, number, torch.full_like(number, -1)).unsqueeze(1)
        left = (8 + 4 * (number % 56)).to(torch.float32)
        top = torch.full_like(left, 150.0 + self.top)
        box = torch.cat([left, top, left + 40, top + 60], dim=1).unsqueeze(1)
        none = torch.zeros_like(box)
        return (number, torch.cat([box, none], dim=1), torch.full_like(left, 0.75).repeat(1, 2),
                torch.ones_like(number))


class Add(nn.Module):
    def __init__(self, amount: int):
        super().__init__()
        self.amount = amount

    def forward(self, x: Tensor) -> Tensor:
        return x + self.amount


class Mlp(nn.Sequential):
    """Linear layers of the given widths with ReLU between them."""

    def __init__(self, *widths: int):
        layers: List[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers[:-1])


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                                   nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                                    nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                          nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """He et al., "Deep Residual Learning" (2015), 18 layers, with random weights."""

    def __init__(self):
        blocks: List[nn.Module] = []
        inputs = 64
        for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [ResidualBlock(inputs, outputs, stride), ResidualBlock(outputs, outputs, 1)]
            inputs = outputs
        super().__init__(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64),
                         nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), *blocks,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class ConvNet(nn.Sequential):
    """A small convolutional network, whose normalisation changes what it is given."""

    def __init__(self):
        norm = nn.BatchNorm2d(8)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(4),
                         nn.Flatten(), nn.Linear(8 * 16, 4))


class HowItRuns(nn.Module):
    """Says of itself: the stride of its input's channels, and whether it computes in BF16."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = 1 if self.convolution(x).dtype == torch.bfloat16 else 0
        facts = torch.tensor([x.stride(1), reduced], dtype=torch.int32)
        return facts.expand(x.size(0), 2)


class OnlyPrecise(nn.Module):
    """Computes nonsense where it notices that it runs in BF16."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if y.dtype == torch.bfloat16:
            y = y * 2
        return y


class FlattenedByView(nn.Module):
    """Raises where its input's layout isn't that of its dims."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)


class FlattenedAsItLies(nn.Module):
    """Takes its input's values in the order in which they lie in memory."""

    def forward(self, x: Tensor) -> Tensor:
        elements = x.numel() // x.size(0)
        return x.as_strided([x.size(0), elements], [elements, 1])


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        parts = self.into(x).reshape(rows, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(rows, length, width))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), SelfAttention(width, heads))
        self.think = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(),
                                   nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        return x + self.think(x)


class Transformer(nn.Module):
    """Encodes sequences of vectors, and classifies their mean."""

    def __init__(self, width: int, heads: int, blocks: int, classes: int):
        super().__init__()
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(blocks)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(dim=1))


class TwoInTwoOut(nn.Module):
    def forward(self, values: Tensor, ids: Tensor) -> Tuple[Tensor, Tensor]:
        return values + ids.sum(1, keepdim=True).to(torch.float32), ids * 2


class DictOut(nn.Module):
    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        return {"total": x.sum(1, keepdim=True), "sorted": x.sort(dim=1)[0]}


class ListOut(nn.Module):
    def forward(self, x: Tensor) -> List[Tensor]:
        return [x.abs(), x.square(), -x]


class Forking(nn.Module):
    """Runs its halves as two tasks of TorchScript's own thread pool."""

    def __init__(self):
        super().__init__()
        self.left = nn.Linear(16, 8)
        self.right = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        left = torch.jit.fork(self.left, x)
        right = torch.jit.fork(self.right, x)
        return torch.cat([torch.jit.wait(left), torch.jit.wait(right)], dim=1)


class Slow(nn.Module):
    """Burns CPU time for as many loops as its largest row says, about a millisecond each; nothing
    but SIGKILL interrupts it."""

    def forward(self, loops: Tensor) -> Tensor:
        x = torch.full([400000], 0.5)
        for _ in range(3 * int(loops.max())):
            x = x.sin_().add_(0.1)
        return loops + (x[:1] > 2).to(torch.int32)  # Never so; the loop can't be optimised away.


class Delay(nn.Module):
    """Returns its input after setup_us + row_us × rows microseconds, without using the core."""

    def __init__(self, setup_us: float, row_us: float):
        super().__init__()
        self.setup_us = setup_us
        self.row_us = row_us

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.millrace.delay(x, self.setup_us, self.row_us)


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative input")
        return x.sqrt()


class Crashes(nn.Module):
    """Reads wild memory (SIGSEGV) when any row isn't 0."""

    def forward(self, crash: Tensor) -> Tensor:
        if bool((crash != 0).any()):
            far_away = torch.full([1, 1], 1 << 44, dtype=torch.int64)
            wild = torch.ops.aten._sparse_coo_tensor_unsafe(far_away, torch.ones(1), [1])
            return crash + wild.to_dense().to(torch.int32)
        return crash


class RunningSum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


class Transposed(nn.Module):
    def forward(self, matrix: Tensor) -> Tensor:
        return matrix.t()


class Lookup(nn.Module):
    """Takes ids from 0 to 9; others raise."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids)


class MeanOverBatch(nn.Module):
    """Wrong for batching: whatever comes, one row leaves."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0, keepdim=True)


class Release(nn.Module):
    """Adds a number that tells its versions apart, after a few milliseconds of work on 32 MB of
    weights."""

    def __init__(self, amount: float):
        super().__init__()
        self.amount = amount
        self.weight = nn.Parameter(torch.full([1024, 8192], 1e-3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.amount + 0.0 * (x[:1, :1] * self.weight).sum()


class CrashesAlways(nn.Module):
    """Reads wild memory (SIGSEGV), whatever it gets."""

    def forward(self, x: Tensor) -> Tensor:
        far_away = torch.full([1, 1], 1 << 44, dtype=torch.int64)
        wild = torch.ops.aten._sparse_coo_tensor_unsafe(far_away, torch.ones(1), [1])
        return x + wild.to_dense()


class Centred(nn.Module):
    """Wrong for batching: a row's result depends on the others."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Noisy(nn.Module):
    """Never twice the same."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)
