"""Agreement of lesion maps and involvement with drawn masks, and of their strongest place with the lungs."""

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from training.data.ct_slices import CtSlice
from training.data.masks import Mask
from training.errors import TrainingError
from training.evaluation.predictions import Predictions
from training.run.record import Record

_FEWEST_CELLS = 10
"""Fewest lesion cells of a slice with lesion; fewer are a few pixels at a border."""


class LesionScores(Record):
    """Agreement of one network's predictions with drawn masks.

    Attributes:
        slices: scored slices, which have masks and lungs.
        without_lungs: slices with masks that are not scored, because they show too little lung.
        with_lesion: scored slices with a lesion, over which the Dice score is averaged.
        cell_auc: of the lesion probability over all cells inside lungs.
        dice: of the map at 0.5, mean over slices with lesion.
        involvement_spearman: rank correlation of the lung involvement with that of the masks; None where either is the
            same for all slices.
        involvement_error: mean absolute error of the involvement.
        strongest_inside_lung: share of slices whose strongest cell lies inside a drawn lung.
    """

    slices: int
    without_lungs: int = 0
    with_lesion: int
    cell_auc: float
    dice: float
    involvement_spearman: float | None
    involvement_error: float
    strongest_inside_lung: float


def score_lesions(predictions: Predictions, slices: Sequence[CtSlice]) -> LesionScores:
    """Compare the maps with the drawn lesion masks, on the maps' grid.

    Without a drawn lung mask, the lungs of the network are used.
    """
    size = predictions.heatmap.shape[1]
    cells: list[NDArray[np.float32]] = []
    truths: list[Mask] = []
    dices, drawn_involvement, involvement, inside = [], [], [], []
    with_masks = [i for i, slice_ in enumerate(slices) if slice_.lesion is not None]
    for i in with_masks:
        mask, lung = slices[i].lesion, slices[i].lung
        drawn = predictions.lungs[i] > 0.5 if lung is None else to_grid(lung, size)
        if mask is None or drawn.sum() < 2 * _FEWEST_CELLS:
            continue
        heat, lesion = predictions.heatmap[i].astype(np.float32), to_grid(mask, size)
        cells.append(heat[drawn])
        truths.append(lesion[drawn])
        involvement.append(float(predictions.involvement[i, 0]))
        drawn_involvement.append(float((lesion & drawn).sum() / drawn.sum()))
        if lesion.sum() >= _FEWEST_CELLS:
            marked = heat > 0.5
            dices.append(2 * float((marked & lesion).sum()) / float(marked.sum() + lesion.sum()))
            inside.append(is_inside(heat, drawn))
    if not dices:
        raise TrainingError("no left-out slice has a drawn lesion inside lungs; leave out a volume with lesions")
    return LesionScores(
        slices=len(involvement),
        without_lungs=len(with_masks) - len(involvement),
        with_lesion=len(dices),
        cell_auc=float(roc_auc_score(np.concatenate(truths), np.concatenate(cells))),
        dice=float(np.mean(dices)),
        involvement_spearman=_rank_correlation(involvement, drawn_involvement),
        involvement_error=float(np.mean(np.abs(np.array(involvement) - np.array(drawn_involvement)))),
        strongest_inside_lung=float(np.mean(inside)),
    )


def strongest_inside_lung(predictions: Predictions, slices: Sequence[CtSlice]) -> dict[str, float]:
    """Compute the share of COVID slices by source whose strongest cell lies inside a lung found by the lung finder."""
    inside: dict[str, list[bool]] = defaultdict(list)
    for index, slice_ in enumerate(slices):
        if slice_.kind == "labelled" and slice_.label == 1:
            heat = predictions.heatmap[index].astype(np.float32)
            lung = to_grid(predictions.found_lungs[index] > 0.5, len(heat))
            inside[slice_.source].append(is_inside(heat, lung))
    return {name: float(np.mean(members)) for name, members in sorted(inside.items())}


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(spearmanr(first, second)[0])


def to_grid(mask: Mask, size: int) -> Mask:
    """Reduce a mask to the maps' grid: a cell is inside where at least half of it is."""
    reduced = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced) >= 0.5


def is_inside(heatmap: NDArray[np.float32], lung: Mask) -> bool:
    """Whether the strongest cell lies inside a lung, or touches one."""
    widened = cv2.dilate(lung.astype(np.uint8), np.ones((3, 3), np.uint8))
    return bool(widened.flat[int(np.argmax(heatmap))])
