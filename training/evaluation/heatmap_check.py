"""Check of the heat map: if its strongest cells are covered, the probability should fall more than for random cells.

After the deletion test of Petsiuk et al. 2018 (RISE, arXiv 1806.07421), with random covers of the same size.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torchvision.transforms.v2.functional import gaussian_blur

from training.run.record import Record
from training.run.seeding import derive_seed

SHARE: Final = 0.2
"""Share of the map's cells that is covered."""

_BLUR_PIXELS: Final = 10.0
_BLUR_KERNEL: Final = 31
"""Three standard deviations wide, and odd."""


class HeatmapCheck(Record):
    """Effect of covering the heat map's top cells, compared with random cells.

    Attributes:
        count: number of correctly called test slices.
        covered: share of the cells that is covered.
        share: of the counted slices, those where the top cells lowered the probability more than random cells.
        top_drop, random_drop: mean loss of probability of the called class.
    """

    count: int
    covered: float
    share: float
    top_drop: float
    random_drop: float


def cover(images: torch.Tensor, heatmaps: torch.Tensor, called: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """Blur the top cells of each heat map, and as many random cells.

    Args:
        images: uint8 (N, 1, S, S).
        heatmaps: evidence for COVID, float (N, h, w).
        called: bool (N,), slices called COVID. For the others, the lowest cells are the evidence.
        seed: of the random cells.

    Returns:
        Images `top` and `random`, uint8 (N, 1, S, S) each.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "occlusion"))
    evidence = torch.where(called[:, None, None], heatmaps, -heatmaps)
    random = torch.rand(evidence.shape, generator=generator)
    return {"top": _blurred(images, _highest(evidence)), "random": _blurred(images, _highest(random))}


def check_heatmap(
    probabilities: torch.Tensor, covered: Mapping[str, torch.Tensor], labels: torch.Tensor, threshold: float
) -> HeatmapCheck:
    """Compare probabilities before and after covering; only correctly called slices count.

    Args:
        probabilities: float (N,), of the slices without cover.
        covered: float (N,) with the `top` and with `random` cells covered.
        labels: int64 (N,).
    """
    called = probabilities >= threshold
    right = called == (labels == 1)

    def of_called_class(answers: torch.Tensor) -> torch.Tensor:
        return torch.where(called, answers, 1 - answers)[right]

    def drop(name: str) -> torch.Tensor:
        return of_called_class(probabilities) - of_called_class(covered[name])

    top, random = drop("top"), drop("random")
    return HeatmapCheck(
        count=len(top),
        covered=SHARE,
        share=(top > random).float().mean().item(),
        top_drop=top.mean().item(),
        random_drop=random.mean().item(),
    )


def _highest(maps: torch.Tensor) -> torch.Tensor:
    """Return the cells of (N, h, w) maps that belong to the top share of their map: bool."""
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    return chosen.scatter(1, order[:, : round(SHARE * flat.shape[1])], value=True).view_as(maps)


def _blurred(images: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Blur uint8 (N, 1, S, S) images in the cells of bool (N, h, w).

    Blur removes structure and keeps brightness. Grey squares would add structure.
    """
    mask = torch.nn.functional.interpolate(cells[:, None].float(), images.shape[-2:], mode="nearest") > 0.5
    return torch.where(mask, gaussian_blur(images, [_BLUR_KERNEL, _BLUR_KERNEL], [_BLUR_PIXELS, _BLUR_PIXELS]), images)
