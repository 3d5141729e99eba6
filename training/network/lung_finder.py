"""A small network that finds the lungs in a whole slice, and detects pictures that are not axial chest slices."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

INPUT_SIZE: Final = 128
"""Pixels, side of the finder's square input."""


class LungFinder(nn.Module):
    """Finds lungs at a quarter of the cost of one VGG block, so that the large network sees only the lungs.

    A U-Net (Ronneberger et al. 2015, arXiv 1505.04597) of four levels.

    `forward`: float (N, 1, 128, 128), grey from 0 to 1 -> logits of lung (N, 1, 64, 64) and logits of the kind of
    picture (N, 2): not an axial chest slice, several panels.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 80, 128)) -> None:
        super().__init__()
        finest, fine, coarse, coarsest = widths
        self.down_0 = nn.Sequential(convolution(1, finest, 2), convolution(finest, finest))
        self.down_1 = nn.Sequential(convolution(finest, fine, 2), convolution(fine, fine))
        self.down_2 = nn.Sequential(convolution(fine, coarse, 2), convolution(coarse, coarse))
        self.down_3 = nn.Sequential(
            convolution(coarse, coarsest, 2), convolution(coarsest, coarsest), convolution(coarsest, coarsest)
        )
        self.up_2 = convolution(coarsest + coarse, coarse)
        self.up_1 = convolution(coarse + fine, fine)
        self.up_0 = convolution(fine + finest, finest)
        self.lung = nn.Conv2d(finest, 1, 1)
        self.kind = nn.Linear(coarsest + finest, 2)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        finest = self.down_0(picture)
        fine = self.down_1(finest)
        coarse = self.down_2(fine)
        coarsest = self.down_3(coarse)
        up = self.up_2(torch.cat([_enlarge(coarsest), coarse], 1))
        up = self.up_1(torch.cat([_enlarge(up), fine], 1))
        up = self.up_0(torch.cat([_enlarge(up), finest], 1))
        pooled = torch.cat([coarsest.float().mean((2, 3)), up.float().mean((2, 3))], 1)
        kind = nn.functional.linear(pooled, self.kind.weight.float(), self.kind.bias.float())
        return self._lung_logits(up), kind

    def _lung_logits(self, up: torch.Tensor) -> torch.Tensor:
        """Apply the last convolution, of one cell, as a sum, which has the same bits with any number of threads."""
        bias = self.lung.bias
        assert bias is not None  # noqa: S101 - the layer has one
        return (up.float() * self.lung.weight[0].float()).sum(1, keepdim=True) + bias.float()


def find_lung(finder: LungFinder, grey: NDArray[np.uint8]) -> torch.Tensor:
    """Find the lungs of one slice (S, S): probability of lung, float32 (1, 64, 64), on the finder's device."""
    picture = torch.from_numpy(grey)[None, None].to(next(finder.parameters()).device)
    with torch.inference_mode():
        return torch.sigmoid(finder(shrink(picture.float() / 255))[0])[0]


def shrink(picture: torch.Tensor, size: int = INPUT_SIZE) -> torch.Tensor:
    """Resize float (N, 1, S, S) to the finder's input, with antialiasing."""
    return nn.functional.interpolate(picture, size=[size, size], mode="bilinear", antialias=True, align_corners=False)


def _enlarge(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def convolution(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """Build a 3 x 3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )
