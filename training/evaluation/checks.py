"""Refusals by the checks of a picture: of chest slices, which should be answered, and of other pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from service.imaging.decode import to_input
from service.model.card import CheckName
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.data.generated_images import generated_images
from training.data.windows import estimate_hounsfield, show
from training.evaluation.answers import CHECKS
from training.network.lesion_reader import LesionReader
from training.network.lung_finder import shrink
from training.run.machine import Machine
from training.run.progress import progress
from training.run.record import Record

CHECK_THRESHOLDS: Final[dict[CheckName, float]] = {
    "several_panels": 0.5,
    "inverted": 0.5,
    "turned": 0.5,
    "no_lungs": 0.1,
    "wrong_window": 0.5,
}
CHECKS_RULE: Final = (
    "no_lungs: fixed at 0.1, many times what 99 % of the training slices have; the others: fixed at 0.5, the network's "
    "own decision"
)

_REFUSED_WINDOWS: Final = ((40.0, 400.0), (400.0, 1800.0), (50.0, 350.0))
_LUNG_WINDOWS: Final = tuple((centre, width) for centre in (-700.0, -400.0) for width in (1000.0, 2000.0))
"""Centres and widths in Hounsfield units: soft tissue, bone and mediastinum, and the narrowest and widest of lungs."""

_MOST: Final = 200
_MOST_ALTERED: Final = 50
"""Slices of a source that are checked as they are, and altered."""


class CheckShares(Record):
    """Share of a set of pictures that is refused, in all and by reason."""

    count: int
    refused: float
    reasons: dict[CheckName, float]


class Checks(Record):
    """Thresholds of the checks that refuse a picture, and what they refuse.

    Attributes:
        thresholds: by check; a picture is refused above it.
        slices: chest slices by source, which should be answered.
        others: other pictures by kind, which should be refused.
        altered: the same chest slices by alteration and source: turned, inverted and in windows that show no lungs,
            which should be refused, and in other lung windows, which should be answered.
    """

    thresholds: dict[CheckName, float]
    rule: str
    slices: dict[str, CheckShares]
    others: dict[str, CheckShares]
    altered: dict[str, dict[str, CheckShares]] = Field(default_factory=dict)


def measure_checks(
    reader: LesionReader,
    slices: Sequence[CtSlice],
    others: Mapping[str, Sequence[CtSlice]],
    machine: Machine,
    seed: int,
) -> Checks:
    """Measure what is refused of chest slices, at most 200 a source, and of other pictures and generated ones."""
    generator = np.random.default_rng(seed)
    sources = sorted({each.source for each in slices})
    sampled = {name: _sample([each for each in slices if each.source == name], generator) for name in sources}
    few = {name: _sample(own, generator, _MOST_ALTERED) for name, own in sampled.items()}
    generated = {
        kind: [CtSlice(kind, str(i), str(i), "other", to_input(each, SLICE_SIZE)[0]) for i, each in enumerate(members)]
        for kind, members in generated_images(seed).items()
    }
    return Checks(
        thresholds=CHECK_THRESHOLDS,
        rule=CHECKS_RULE,
        slices={name: _shares(reader, own, machine, name) for name, own in sampled.items()},
        others={name: _shares(reader, own, machine, name) for name, own in {**others, **generated}.items()},
        altered={
            name: {
                source: _shares(reader, [change(each) for each in own], machine, f"{source}, {name}")
                for source, own in few.items()
            }
            for name, change in _alterations(reader).items()
        },
    )


def _alterations(reader: LesionReader) -> dict[str, Callable[[CtSlice], CtSlice]]:
    """Name every way in which the slices are altered; windows need the lungs that the reader finds."""
    turns: dict[str, Callable[[CtSlice], CtSlice]] = {
        "turned by 90 degrees": lambda each: _with_grey(each, np.rot90(each.grey, 1)),
        "turned by 180 degrees": lambda each: _with_grey(each, np.rot90(each.grey, 2)),
        "turned by 270 degrees": lambda each: _with_grey(each, np.rot90(each.grey, 3)),
        "upside down": lambda each: _with_grey(each, np.flipud(each.grey)),
        "inverted": lambda each: _with_grey(each, 255 - each.grey),
    }
    windows = {
        f"{kind} window {centre:g}/{width:g}": partial(_in_window, reader, (centre, width))
        for kind, own in (("refused", _REFUSED_WINDOWS), ("lung", _LUNG_WINDOWS))
        for centre, width in own
    }
    return turns | windows


def _in_window(reader: LesionReader, window: tuple[float, float], each: CtSlice) -> CtSlice:
    grey = each.grey.astype(np.float32) / np.float32(255)
    device = reader.normalise.mean.device
    with torch.inference_mode():
        found, _ = reader.finder(shrink(torch.from_numpy(grey)[None, None].to(device)))
    lung = torch.sigmoid(found)[0, 0].cpu().numpy()
    return _with_grey(each, np.rint(show(estimate_hounsfield(grey, lung), window) * 255).astype(np.uint8))


def _with_grey(each: CtSlice, grey: NDArray[np.uint8]) -> CtSlice:
    return replace(each, grey=np.ascontiguousarray(grey))


def _shares(reader: LesionReader, slices: Sequence[CtSlice], machine: Machine, name: str) -> CheckShares:
    """Run the checks alone, which need the lung finder but not the large network."""
    rows = []
    with torch.inference_mode():
        for start in progress(range(0, len(slices), 32), f"checking {name}", "batch"):
            greys = np.stack([each.grey for each in slices[start : start + 32]])
            _, _, lung, kind, views = reader.look(torch.from_numpy(greys)[:, None].to(machine.device))
            scores = reader.check(lung, kind, views)
            rows.append(torch.stack([scores[check] for check in CHECKS], dim=1).cpu().numpy())
    fired = np.concatenate(rows) > np.array([CHECK_THRESHOLDS[check] for check in CHECKS])
    return CheckShares(
        count=len(slices),
        refused=float(fired.any(1).mean()),
        reasons={check: float(fired[:, i].mean()) for i, check in enumerate(CHECKS)},
    )


def _sample(slices: Sequence[CtSlice], generator: np.random.Generator, most: int = _MOST) -> list[CtSlice]:
    chosen = generator.permutation(len(slices))[:most]
    return [slices[int(i)] for i in sorted(chosen)]
