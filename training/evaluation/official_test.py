"""Scores of the official test: with official and corrected labels, and with altered slices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from sklearn.metrics import accuracy_score, roc_auc_score

from service.imaging.decode import to_input
from training.data.covid_ct import Split
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.data.lesion_data import LesionData
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.predictions import Predictions
from training.evaluation.scores import Scores, score
from training.network.lung_box import find_box
from training.network.lung_finder import LungFinder, find_lung
from training.run.record import Record


class AlteredScores(Record):
    """Scores on the altered test split, and their changes."""

    auc: float
    accuracy: float
    auc_change: float
    accuracy_change: float


def alter(originals: Split, slices: Sequence[CtSlice], finder: LungFinder) -> dict[str, list[CtSlice]]:
    """Alter the test slices in every way, including black outside the lungs' box; `plain` are the unaltered slices.

    Args:
        originals: the slices at the size of their files. These are altered, because an alteration of scaled slices
            would remove less.
        slices: the same slices as network input.
        finder: finds the lungs' box.
    """
    sets = {"plain": list(slices)}
    for name, change in ALTERATIONS.items():
        pixels = [to_input(original.pixels, SLICE_SIZE)[0] for original in altered(originals, change).slices]
        sets[name] = [replace(slice_, grey=grey) for slice_, grey in zip(slices, pixels, strict=True)]
    sets["lung_box_only"] = [_blacken(slice_, finder) for slice_ in slices]
    return sets


def score_test(predictions: Predictions, data: LesionData, threshold: float, seed: int) -> dict[str, Scores]:
    """Score the unaltered test split; where patients are known, they are the groups of the slices.

    Returns:
        `test` with official labels, `test_corrected` with known errors corrected or left out, `test_without_notes`
        without every slice that the table of errors names, `test_new_papers` without slices that share a paper or a
        patient with a training slice.
    """
    slices, corrections, patients = data.test, data.corrections, data.test_patients
    sets = {
        "test": [slice_.label for slice_ in slices],
        "test_corrected": [corrections.get(slice_.name, slice_.label) for slice_ in slices],
        "test_without_notes": [None if slice_.name in corrections else slice_.label for slice_ in slices],
    }
    new_papers = [None if slice_.name in data.known_papers else slice_.label for slice_ in slices]
    if len(set(new_papers) - {None}) == 2:
        sets["test_new_papers"] = new_papers
    scores = {}
    for name, labels in sets.items():
        usable = [i for i, label in enumerate(labels) if label is not None]
        groups = None if patients is None else [patients[i] for i in usable]
        known = np.array([labels[i] for i in usable])
        scores[name] = score(predictions.probability[usable], known, threshold, seed, groups)
    return scores


def score_altered(
    predictions: Mapping[str, Predictions], slices: Sequence[CtSlice], threshold: float
) -> dict[str, AlteredScores]:
    """Score the altered test splits, without intervals, against the plain one."""
    labels = np.array([slice_.label for slice_ in slices])

    def auc_and_accuracy(name: str) -> tuple[float, float]:
        p = predictions[name].probability.astype(np.float64)
        return round(float(roc_auc_score(labels, p)), 4), round(float(accuracy_score(labels, p >= threshold)), 4)

    scores = {}
    plain_auc, plain_accuracy = auc_and_accuracy("plain")
    for name in [name for name in predictions if name != "plain"]:
        auc, accuracy = auc_and_accuracy(name)
        changes = {"auc_change": auc - plain_auc, "accuracy_change": accuracy - plain_accuracy}
        scores[name] = AlteredScores(auc=auc, accuracy=accuracy, **changes)
    return scores


def _blacken(slice_: CtSlice, finder: LungFinder) -> CtSlice:
    """Blacken everything outside the lungs' box."""
    box = find_box(find_lung(finder, slice_.grey))[0].tolist()
    x0, x1, y0, y1 = (min(SLICE_SIZE, max(0, round(side * SLICE_SIZE))) for side in box)
    grey = np.zeros_like(slice_.grey)
    grey[y0:y1, x0:x1] = slice_.grey[y0:y1, x0:x1]
    return replace(slice_, grey=grey)
