# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A module as one writes it: a small network for pictures, with random weights."""

from typing import Dict

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Takes pictures [rows, 3, 32, 32]. The argument's name and the dict's keys are what
    config.pbtxt calls them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)  # Every call makes the same.
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
                                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, image: Tensor) -> Dict[str, Tensor]:
        scores = self.layers(image).softmax(dim=1)
        return {"scores": scores, "best": scores.argmax(dim=1, keepdim=True)}
