"""Agreement of lesion maps and involvement with masks that people drew."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from training.data.ct_slices import CtSlice
from training.data.masks import Mask
from training.errors import TrainingError
from training.evaluation.answers import Answers
from training.run.record import Record

_FEWEST_CELLS = 10
"""Lesion cells from which on a slice counts as one with lesion; fewer are a few pixels at a border."""


class LesionScores(Record):
    """Agreement of one network's answers with drawn masks.

    Attributes:
        slices: with masks and lungs.
        with_lesion: of these, slices of which the Dice score is the mean.
        cell_auc: of the lesion probability over all cells inside lungs.
        dice: of the map at 0.5, mean over slices with lesion.
        involvement_spearman: rank correlation of the lung involvement with that of the masks; None where either is the
            same for all slices.
        involvement_error: mean absolute error of the involvement.
        strongest_inside_lung: share of slices whose strongest cell lies inside a drawn lung.
    """

    slices: int
    with_lesion: int
    cell_auc: float
    dice: float
    involvement_spearman: float | None
    involvement_error: float
    strongest_inside_lung: float


def score_lesions(answers: Answers, slices: Sequence[CtSlice]) -> LesionScores:
    """Compare the maps of slices that have lesion masks with these masks, on the maps' grid.

    Where no lung was drawn, the network's own lungs are taken.

    Raises:
        TrainingError: no slice has a drawn lesion.
    """
    size = answers.heatmap.shape[1]
    cells: list[NDArray[np.float32]] = []
    truths: list[Mask] = []
    dices, wanted, given, inside = [], [], [], []
    for i, each in enumerate(slices):
        if each.lesion is None:
            continue
        drawn = answers.lungs[i] > 0.5 if each.lung is None else to_grid(each.lung, size)
        if drawn.sum() < 2 * _FEWEST_CELLS:
            continue
        heat, lesion = answers.heatmap[i].astype(np.float32), to_grid(each.lesion, size)
        cells.append(heat[drawn])
        truths.append(lesion[drawn])
        given.append(float(answers.involvement[i, 0]))
        wanted.append(float((lesion & drawn).sum() / drawn.sum()))
        if lesion.sum() >= _FEWEST_CELLS:
            found = heat > 0.5
            dices.append(2 * float((found & lesion).sum()) / float(found.sum() + lesion.sum()))
            inside.append(bool(is_inside(heat, drawn)))
    if not dices:
        raise TrainingError("no left-out slice has a drawn lesion inside lungs; leave out a volume with lesions")
    return LesionScores(
        slices=len(given),
        with_lesion=len(dices),
        cell_auc=float(roc_auc_score(np.concatenate(truths), np.concatenate(cells))),
        dice=float(np.mean(dices)),
        involvement_spearman=_rank_correlation(given, wanted),
        involvement_error=float(np.mean(np.abs(np.array(given) - np.array(wanted)))),
        strongest_inside_lung=float(np.mean(inside)),
    )


def _rank_correlation(given: Sequence[float], wanted: Sequence[float]) -> float | None:
    if len(set(given)) < 2 or len(set(wanted)) < 2:
        return None
    return float(spearmanr(given, wanted)[0])


def to_grid(mask: Mask, size: int) -> Mask:
    """Reduce a mask to the maps' grid: a cell is inside where at least half of it is."""
    reduced = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced) >= 0.5


def is_inside(heatmap: NDArray[np.float32], lung: Mask) -> bool:
    """Whether the strongest cell lies inside a lung, or touches one."""
    widened = cv2.dilate(lung.astype(np.uint8), np.ones((3, 3), np.uint8))
    return bool(widened.flat[int(np.argmax(heatmap))])
