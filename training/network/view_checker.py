"""A small network that detects unreadable slices: turned, inverted, or in another window."""

from typing import Final

import torch
from torch import nn

from training.network.lung_finder import convolution

VIEWS: Final = ("turned", "inverted", "wrong_window")
"""Views that the network detects, in the order of its outputs."""


class ViewChecker(nn.Module):
    """Detects slices that are turned, inverted or in a window that shows no lungs.

    `forward`: float (N, 1, 128, 128), grey from 0 to 1, like for the lung finder -> float32 logits (N, 3) of VIEWS.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in widths:
            layers += [convolution(channels, width, 2), convolution(width, width)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(2 * channels, len(VIEWS))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        maps = self.layers(picture).float()
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return nn.functional.linear(pooled, self.out.weight.float(), self.out.bias.float())
