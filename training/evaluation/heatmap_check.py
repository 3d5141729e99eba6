"""Does the heat map say what the network looks at? Cover its hottest cells and see whether the probability falls.

After the deletion test of Petsiuk et al. 2018 (RISE, arXiv 1806.07421), with a random cover of the same size beside it.
"""

from typing import Final

import torch
from torchvision.transforms.v2.functional import gaussian_blur

from service.model.file import Network
from training.data.batches import plain_batches
from training.data.covid_ct import Split
from training.run.progress import progress
from training.run.record import Record
from training.run.seeding import derive_seed

SHARE: Final = 0.2
"""Share of the map's cells that is covered."""

_BLUR_PIXELS: Final = 10.0
_BLUR_KERNEL: Final = 31
"""Three standard deviations across, and odd."""


class OcclusionCheck(Record):
    """How often covering the map's top cells lowers the called class's probability more than random cells do.

    Attributes:
        count: correctly called test slices.
        share: of these, where the map's cells mattered more.
        top_drop, random_drop: mean loss of the called class's probability.
    """

    count: int
    covered: float
    share: float
    top_drop: float
    random_drop: float


def check_heatmap(
    network: Network, split: Split, threshold: float, input_size: int, device: torch.device, seed: int
) -> OcclusionCheck:
    """Cover the top and as many random cells of each correctly called slice of a split with its blurred self."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "occlusion"))
    tops: list[torch.Tensor] = []
    randoms: list[torch.Tensor] = []
    with torch.inference_mode():
        for batch in progress(plain_batches(split, input_size), "checking the heat map", "batch"):
            images = batch.images.to(device)
            probability, _, heatmap = network(images)
            called = probability >= threshold
            right = called.cpu() == (batch.labels == 1)
            # the map is evidence for COVID; what speaks for the other class is coldest
            evidence = torch.where(called[:, None, None], heatmap, -heatmap).cpu()
            covers = (_highest(evidence), _highest(torch.rand(evidence.shape, generator=generator)))
            before = torch.where(called, probability, 1 - probability)
            for drops, cover in zip((tops, randoms), covers, strict=True):
                answer = network(_covered(images, cover.to(device)))[0]
                drops.append((before - torch.where(called, answer, 1 - answer)).cpu()[right])
    top, random = torch.cat(tops), torch.cat(randoms)
    return OcclusionCheck(
        count=len(top),
        covered=SHARE,
        share=(top > random).float().mean().item(),
        top_drop=top.mean().item(),
        random_drop=random.mean().item(),
    )


def _highest(maps: torch.Tensor) -> torch.Tensor:
    """The cells of (N, h, w) maps that are in the top share of their own map: bool."""
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    return chosen.scatter(1, order[:, : round(SHARE * flat.shape[1])], value=True).view_as(maps)


def _covered(images: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 1, S, S) with the cells of bool (N, h, w) blurred.

    Blur takes structure away and leaves brightness; grey squares would be structure of their own.
    """
    mask = torch.nn.functional.interpolate(cells[:, None].float(), images.shape[-2:], mode="nearest") > 0.5
    return torch.where(mask, gaussian_blur(images, [_BLUR_KERNEL, _BLUR_KERNEL], [_BLUR_PIXELS, _BLUR_PIXELS]), images)
