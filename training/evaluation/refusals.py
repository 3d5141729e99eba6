"""Shares of refused pictures: of chest slices, which should be accepted, and of other pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from service.imaging.decode import to_input
from service.model.card import CheckName
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.data.windows import as_grey, estimate_hounsfield, show
from training.generated.images import generated_images
from training.network.lesion_reader import FEWEST_LUNG, LesionReader
from training.network.lung_finder import find_lung, shrink
from training.run.machine import Machine
from training.run.progress import progress
from training.run.record import Record

Pixels: TypeAlias = NDArray[np.uint8]
Lung: TypeAlias = NDArray[np.float32]
"""Probability of lung, (64, 64)."""

CHECKS: Final[tuple[CheckName, ...]] = get_args(CheckName)
"""Reasons to refuse a picture; each is an output of the network."""

CHECK_THRESHOLDS: Final[dict[CheckName, float]] = {
    "several_panels": 0.5,
    "inverted": 0.8,
    "turned": 0.5,
    "no_lungs": 0.1,
    "wrong_window": 0.8,
}
CHECKS_RULE: Final = (
    "no_lungs: fixed at 0.1, many times the score of 99 % of the training slices; inverted and wrong_window: fixed at "
    "0.8, so that at most 1 % of left-out slices in a narrow lung window are refused; the others: fixed at 0.5, the "
    "network's decision"
)

_REFUSED_WINDOWS: Final = ((40.0, 400.0), (400.0, 1800.0), (50.0, 350.0))
_LUNG_WINDOWS: Final = tuple((centre, width) for centre in (-700.0, -400.0) for width in (1000.0, 2000.0))
"""Centres and widths in Hounsfield units: soft tissue, bone and mediastinum, and the narrowest and widest of lungs."""

_MOST: Final = 200
_MOST_ALTERED: Final = 50
"""Largest number of slices of a source that are measured unaltered, and altered."""


class RefusalShares(Record):
    """Share of a set of pictures that is refused, in all and by reason."""

    count: int
    refused: float
    reasons: dict[CheckName, float]


class Refusals(Record):
    """Thresholds of the checks that refuse a picture, and the shares of refused pictures.

    Attributes:
        thresholds: by check; a picture is refused above it.
        slices: chest slices by source, which should be accepted.
        others: other pictures by kind, which should be refused.
        altered: those of the same chest slices that show lungs, by alteration and source: turned, inverted and in
            windows that show no lungs, which should be refused, and in other lung windows, which should be accepted.
    """

    thresholds: dict[CheckName, float]
    rule: str
    slices: dict[str, RefusalShares]
    others: dict[str, RefusalShares]
    altered: dict[str, dict[str, RefusalShares]] = Field(default_factory=dict)


def measure_refusals(
    reader: LesionReader,
    slices: Sequence[CtSlice],
    others: Mapping[str, Sequence[CtSlice]],
    machine: Machine,
    seed: int,
) -> Refusals:
    """Measure the refused shares of chest slices, at most 200 a source, and of other pictures and generated ones."""
    generator = np.random.default_rng(seed)
    sources = sorted({slice_.source for slice_ in slices})
    sampled = {name: _sample([slice_ for slice_ in slices if slice_.source == name], generator) for name in sources}
    few = {
        name: found
        for name, members in sampled.items()
        if (found := _with_lungs(reader, _sample(members, generator, _MOST_ALTERED)))
    }
    generated = {
        kind: [CtSlice(kind, str(i), str(i), "other", to_input(image, SLICE_SIZE)[0]) for i, image in enumerate(images)]
        for kind, images in generated_images(seed).items()
    }
    return Refusals(
        thresholds=CHECK_THRESHOLDS,
        rule=CHECKS_RULE,
        slices={name: _shares(reader, members, machine, name) for name, members in sampled.items()},
        others={name: _shares(reader, members, machine, name) for name, members in {**others, **generated}.items()},
        altered={
            name: {
                source: _shares(
                    reader,
                    [replace(slice_, grey=np.ascontiguousarray(alter(slice_.grey, lung))) for slice_, lung in members],
                    machine,
                    f"{source}, {name}",
                )
                for source, members in few.items()
            }
            for name, alter in _ALTERATIONS.items()
        },
    )


def _with_lungs(reader: LesionReader, slices: Sequence[CtSlice]) -> list[tuple[CtSlice, Lung]]:
    """Find the lungs, which other windows need, and keep the slices that have some: the others are refused rightly."""
    found = [(slice_, find_lung(reader.finder, slice_.grey)[0].cpu().numpy()) for slice_ in slices]
    return [(slice_, lung) for slice_, lung in found if (lung > 0.5).mean() >= FEWEST_LUNG]


def _in_window(window: tuple[float, float], pixels: Pixels, lung: Lung) -> Pixels:
    return np.rint(show(estimate_hounsfield(as_grey(pixels), lung), window) * 255).astype(np.uint8)


_ALTERATIONS: Final[dict[str, Callable[[Pixels, Lung], Pixels]]] = {
    "turned by 90 degrees": lambda pixels, _: np.rot90(pixels, 1),
    "turned by 180 degrees": lambda pixels, _: np.rot90(pixels, 2),
    "turned by 270 degrees": lambda pixels, _: np.rot90(pixels, 3),
    "upside down": lambda pixels, _: np.flipud(pixels),
    "inverted": lambda pixels, _: 255 - pixels,
    **{
        f"{kind} window {centre:g}/{width:g}": partial(_in_window, (centre, width))
        for kind, windows in (("refused", _REFUSED_WINDOWS), ("lung", _LUNG_WINDOWS))
        for centre, width in windows
    },
}


def _shares(reader: LesionReader, slices: Sequence[CtSlice], machine: Machine, name: str) -> RefusalShares:
    """Run the checks alone, which need the lung finder but not the large network."""
    rows = []
    with torch.inference_mode():
        for start in progress(range(0, len(slices), 32), f"checking {name}", "batch"):
            greys = np.stack([slice_.grey for slice_ in slices[start : start + 32]])
            seen = shrink(torch.from_numpy(greys)[:, None].to(machine.device).float() / 255)
            cells, kind = reader.finder(seen)
            scores = reader.check(torch.sigmoid(cells), kind, reader.views(seen))
            rows.append(torch.stack([scores[check] for check in CHECKS], dim=1).cpu().numpy())
    fired = np.concatenate(rows) > np.array([CHECK_THRESHOLDS[check] for check in CHECKS])
    return RefusalShares(
        count=len(slices),
        refused=float(fired.any(1).mean()),
        reasons={check: float(fired[:, i].mean()) for i, check in enumerate(CHECKS)},
    )


def _sample(slices: Sequence[CtSlice], generator: np.random.Generator, most: int = _MOST) -> list[CtSlice]:
    chosen = generator.permutation(len(slices))[:most]
    return [slices[int(i)] for i in sorted(chosen)]
