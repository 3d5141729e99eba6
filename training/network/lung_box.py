"""The box around the lungs: its place, the picture inside it, and the tone of that picture.

TorchScript compiles these functions into the model file; it sees no globals, so constants are default arguments.
"""

from typing import Final

import torch
from torch import nn

MARGIN: Final = 0.06
"""Share of the box's side that is added on each side. Without it the box holds 98 % of the lungs along each axis."""

DARK: Final = 0.15
BRIGHT: Final = 0.80
"""Grey, 0 to 1, that aerated lung and soft tissue are moved to."""


def find_box(lung: torch.Tensor, margin: float = MARGIN) -> torch.Tensor:
    """Find the box around the lungs of each slice, widened by a margin.

    Args:
        lung: float (N, h, w), probability of lung at each cell of the whole slice.
        margin: share of the box's side that is added on each side.

    Returns:
        float32 (N, 4): x0, x1, y0, y1 in shares of the slice's width and height; the whole slice without lungs.
    """
    mask = torch.where(lung > 0.5, lung, torch.zeros_like(lung)).float()
    x = _middle_interval(mask.sum(1))
    y = _middle_interval(mask.sum(2))
    has_lungs = mask.sum((1, 2)) >= 1.0
    box = torch.cat([x, y], dim=1)
    side = torch.stack([box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]], dim=1).clamp_min(1 / 32)
    step = margin * side
    widened = torch.stack(
        [box[:, 0] - step[:, 0], box[:, 1] + step[:, 0], box[:, 2] - step[:, 1], box[:, 3] + step[:, 1]], dim=1
    )
    # not torch.tensor: it copies from the host, and the GPU waits
    low = torch.zeros_like(box[:, 0])
    whole = torch.stack([low, low + 1.0, low, low + 1.0], dim=1)
    return torch.where(has_lungs[:, None], widened, whole)


def crop(picture: torch.Tensor, box: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Sample the box of each picture: float (N, C, H, W), (N, 4) -> float32 (N, C, height, width); 0 outside."""
    scale = torch.stack([box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]], dim=1)
    centre = torch.stack([box[:, 0] + box[:, 1], box[:, 2] + box[:, 3]], dim=1) - 1.0
    return _sample(picture.float(), scale, centre, height, width)


def place_back(inside: torch.Tensor, box: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Put maps of the box back into the whole slice: float (N, C, h, w) -> float32 (N, C, height, width); 0 outside."""
    scale = torch.stack([box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]], dim=1)
    centre = torch.stack([box[:, 0] + box[:, 1], box[:, 2] + box[:, 3]], dim=1) - 1.0
    return _sample(inside.float(), 1.0 / scale, -centre / scale, height, width)


def set_tone(grey: torch.Tensor, lung: torch.Tensor, to_dark: float = DARK, to_bright: float = BRIGHT) -> torch.Tensor:
    """Give aerated lung and soft tissue the same grey in every slice, in any window.

    Aerated lung is the mean of the lung's darker half, tissue that of the brighter half outside the lungs.

    Args:
        grey: float (N, 1, H, W), 0 to 1.
        lung: float (N, 1, H, W), probability of lung.
        to_dark, to_bright: grey that lung and tissue are moved to.

    Returns:
        float32 (N, 1, H, W), 0 to 1.
    """
    dark = _mean_of_half(grey, (lung > 0.5).float(), -1.0)
    bright = _mean_of_half(grey, (lung < 0.2).float(), 1.0)
    none = (lung > 0.5).float().sum((1, 2, 3), keepdim=True) < 30
    dark = torch.where(none, torch.zeros_like(dark), dark)
    bright = torch.maximum(torch.where(none, torch.ones_like(bright), bright), dark + 0.08)
    return (to_dark + (to_bright - to_dark) * (grey - dark) / (bright - dark)).clamp(0.0, 1.0)


def _middle_interval(profile: torch.Tensor) -> torch.Tensor:
    """Interval that holds the middle 98 % of a profile: float (N, n) -> (N, 2), in shares of n."""
    count = profile.shape[1]
    total = profile.sum(1, keepdim=True).clamp_min(1e-6)
    reached = torch.cumsum(profile, 1) / total
    before = reached - profile / total
    ends: list[torch.Tensor] = []
    for wanted in (0.01, 0.99):
        at = (reached < wanted).sum(1, keepdim=True).clamp_max(count - 1)
        share = (wanted - before.gather(1, at)) / (profile / total).gather(1, at).clamp_min(1e-6)
        ends.append((at + share.clamp(0.0, 1.0)) / count)
    return torch.cat(ends, dim=1)


def _mean_of_half(grey: torch.Tensor, inside: torch.Tensor, sign: float) -> torch.Tensor:
    """Mean of the darker (sign -1) or brighter (sign 1) half of a region, float32 (N, 1, 1, 1)."""
    half = inside * (sign * (grey - _mean(grey, inside)) >= 0).float()
    return _mean(grey, half)


def _mean(grey: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean, float32 (N, 1, 1, 1), summed in float64: so it has the same bits with any number of threads."""
    total = (grey * weight).sum((1, 2, 3), keepdim=True, dtype=torch.float64)
    return (total / weight.sum((1, 2, 3), keepdim=True, dtype=torch.float64).clamp_min(1.0)).float()


def _sample(picture: torch.Tensor, scale: torch.Tensor, centre: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Sample pictures at scale * p + centre for p in -1..1, as grid_sample's coordinates have it."""
    x = scale[:, :1] * _cell_middles(picture, width) + centre[:, :1]
    y = scale[:, 1:] * _cell_middles(picture, height) + centre[:, 1:]
    # not affine_grid: it multiplies a matrix for each cell, and takes longer than the sampling
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return nn.functional.grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _cell_middles(like: torch.Tensor, count: int) -> torch.Tensor:
    """Middles of `count` cells between -1 and 1, float32 (count,), on a tensor's device."""
    return (2.0 * torch.arange(count, device=like.device) + 1.0) / count - 1.0
