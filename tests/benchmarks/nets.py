# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Nets that `millrace compile` is measured with; what they have learned is random, and the same in
every process."""

import pathlib
import sys

import torch
from torch import Tensor, nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "models"))

import modules


class Transformer(nn.Module):
    """Four layers of self-attention, 4 heads and 256 wide, over 64 positions."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer(256, 4) for _ in range(4))
        self.head = nn.Linear(256, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(tokens.mean(1))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(),
                                  nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        split = self.project(self.before_attention(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = split.transpose(1, 3).unbind(2)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.join(attended.transpose(1, 2).flatten(2))
        return x + self.feed(x)


def seeded(make):
    torch.manual_seed(20240731)
    return make()


def resnet18() -> nn.Module:
    return seeded(modules.ResNet18)


def large_mlp() -> nn.Module:
    return seeded(lambda: modules.Mlp(1024, 4096, 4096, 1000))


def tiny_mlp() -> nn.Module:
    return seeded(lambda: modules.Mlp(32, 64, 8))


def transformer() -> nn.Module:
    return seeded(Transformer)
