"""Check of the heat map: does its strongest place lie inside a lung, and do its strongest cells carry the answer?"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice
from training.data.lungs_by_threshold import segment_with_lesions
from training.data.masks import Mask
from training.evaluation.answers import Answers
from training.evaluation.lesion_scores import is_inside, to_grid
from training.run.record import Record
from training.run.seeding import derive_seed

SHARE: Final = 0.2
"""Share of the lung's cells that is covered."""

_FEWEST_LUNG: Final = 0.15
"""Share of the slice that segmented lungs must take: less is a trachea, or a lung that was not found."""


class CoveringTest(Record):
    """Effect of covering the strongest cells of the lung, compared with as many random cells of the lung.

    Attributes:
        count: COVID slices that are called COVID.
        covered: share of the lung's cells that is covered.
        share: of the counted slices, those where the strongest cells lowered the probability more than random cells.
        strongest_drop, random_drop: mean loss of probability.
    """

    count: int
    covered: float
    share: float
    strongest_drop: float
    random_drop: float


def strongest_inside_lung(answers: Answers, slices: Sequence[CtSlice]) -> dict[str, float]:
    """Share of COVID slices by source whose strongest cell lies inside a lung, as the lung finder sees it."""
    return _inside_by_source(answers, slices, lambda index: answers.found_lungs[index] > 0.5)


def strongest_inside_segmented_lung(answers: Answers, slices: Sequence[CtSlice]) -> dict[str, float]:
    """The same with lungs by a classic segmentation; slices in which it finds too little are left out."""

    def segmented(index: int) -> Mask | None:
        lung = segment_with_lesions(slices[index].grey)
        return lung if lung.mean() >= _FEWEST_LUNG else None

    return _inside_by_source(answers, slices, segmented)


def _inside_by_source(
    answers: Answers, slices: Sequence[CtSlice], lung_of: Callable[[int], Mask | None]
) -> dict[str, float]:
    inside: dict[str, list[bool]] = defaultdict(list)
    for index, each in enumerate(slices):
        lung = lung_of(index) if each.kind == "labelled" and each.label == 1 else None
        if lung is not None:
            heat = answers.heatmap[index].astype(np.float32)
            inside[each.source].append(is_inside(heat, to_grid(lung, len(heat))))
    return {name: float(np.mean(own)) for name, own in sorted(inside.items())}


def cover(answers: Answers, slices: Sequence[CtSlice], seed: int) -> dict[str, list[CtSlice]]:
    """Cover the `strongest` fifth of each lung's cells, and a `random` fifth, with the lung's own median grey."""
    generator = np.random.default_rng(derive_seed(seed, "covering"))
    covered: dict[str, list[CtSlice]] = {"strongest": [], "random": []}
    for index, each in enumerate(slices):
        heat, lung = answers.heatmap[index].astype(np.float32), answers.lungs[index] > 0.5
        for name, values in (("strongest", heat), ("random", generator.random(heat.shape, np.float32))):
            covered[name].append(replace(each, grey=_covered(each.grey, values, lung)))
    return covered


def score_covering(
    plain: Answers, covered: Mapping[str, Answers], slices: Sequence[CtSlice], threshold: float
) -> CoveringTest | None:
    """Compare the answers to slices before and after `cover`; None if no COVID slice is called COVID.

    After the deletion test of Petsiuk et al. 2018 (RISE, arXiv 1806.07421).
    """
    right = (plain.probability >= threshold) & np.array([each.label == 1 for each in slices])
    if not right.any():
        return None
    drops = [(plain.probability - covered[name].probability)[right] for name in ("strongest", "random")]
    return CoveringTest(
        count=int(right.sum()),
        covered=SHARE,
        share=float((drops[0] > drops[1]).mean()),
        strongest_drop=float(drops[0].mean()),
        random_drop=float(drops[1].mean()),
    )


def _covered(grey: NDArray[np.uint8], values: NDArray[np.float32], lung: Mask) -> NDArray[np.uint8]:
    """Fill the lung's cells with the highest values; a picture without lungs stays as it is."""
    if not lung.any():
        return grey
    inside = np.where(lung, values, -1.0)
    order = np.argsort(inside, axis=None)[::-1][: max(1, round(SHARE * int(lung.sum())))]
    cells = np.zeros(lung.shape, np.uint8)
    cells.flat[order] = 1
    height, width = grey.shape
    mask = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    whole = cv2.resize(lung.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    rest = whole & ~mask
    filled = grey.copy()
    filled[mask] = np.median(grey[rest] if rest.any() else grey[whole])
    return filled
