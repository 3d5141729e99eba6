"""The look at official test: official and corrected labels, and the same slices altered."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from service.imaging.decode import to_input
from service.model.card import INVOLVEMENT_BOUNDS, PROBABILITY_BOUNDS
from training.data.covid_ct import Split
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.answers import Answers
from training.evaluation.scores import (
    ScoreName,
    Scores,
    score,
    shares_up_to,
    weighted_scores,
)
from training.network.lung_box import find_box
from training.network.lung_finder import LungFinder, shrink
from training.run.record import Record


class AlteredScores(Record):
    """Scores on the altered test split, and their changes."""

    auc: float
    accuracy: float
    auc_change: float
    accuracy_change: float


class FormatScores(Record):
    """Scores on the test slices of one file format; a rate is None without slices of its class."""

    count: int
    positives: int
    sensitivity: float | None
    specificity: float | None


@dataclass(frozen=True, slots=True)
class OfficialTestScores:
    """Scores of official test.

    Attributes:
        scores: `test` with official labels, `test_corrected` with known errors corrected or left out,
            `test_without_notes` without every slice that the table of errors names, `test_new_papers` without slices
            that share a paper or a patient with a training slice.
        formats: by format and colour mode of the file.
        probability_shares: share of probabilities at or below 0.1, 0.2, ... 1.0.
        lung_involvement_shares: share of slices with a lung involvement at or below each of INVOLVEMENT_BOUNDS.
    """

    scores: dict[str, Scores]
    formats: dict[str, FormatScores]
    probability_shares: tuple[float, ...]
    lung_involvement_shares: dict[float, float]


def alter(originals: Split, slices: Sequence[CtSlice], finder: LungFinder) -> dict[str, list[CtSlice]]:
    """Alter the test slices: as they are (`plain`), every alteration, and black outside the lungs' box.

    Args:
        originals: the slices at the size of their files, which are altered; a slice that was scaled to the network's
            size first would lose less.
        slices: the same, as the network gets them.
        finder: finds the lungs' box.
    """
    sets = {"plain": list(slices)}
    for name, change in ALTERATIONS.items():
        pixels = [to_input(original.pixels, SLICE_SIZE)[0] for original in altered(originals, change).slices]
        sets[name] = [replace(slice_, grey=grey) for slice_, grey in zip(slices, pixels, strict=True)]
    sets["lung_box_only"] = [_blacken(slice_, finder) for slice_ in slices]
    return sets


def score_test(
    answers: Answers,
    slices: Sequence[CtSlice],
    corrections: Mapping[str, int | None],
    known_papers: Collection[str],
    threshold: float,
    seed: int,
    *,
    patients_are_known: bool = False,
) -> OfficialTestScores:
    """Score the answers to the unaltered test split; where patients are known, they are the groups of the slices."""
    official = [each.label for each in slices]
    true = [corrections.get(each.name, each.label) for each in slices]
    without = [None if each.name in corrections else each.label for each in slices]
    scores = {}
    new = [None if each.name in known_papers else each.label for each in slices]
    sets = {"test": official, "test_corrected": true, "test_without_notes": without}
    if len(set(new) - {None}) == 2:
        sets["test_new_papers"] = new
    for name, labels in sets.items():
        usable = [i for i, label in enumerate(labels) if label is not None]
        scores[name] = score(
            answers.probability[usable],
            np.array([labels[i] for i in usable]),
            threshold,
            seed,
            [slices[i].group for i in usable] if patients_are_known else None,
        )
    return OfficialTestScores(
        scores=scores,
        formats=_by_format(answers, slices, threshold),
        probability_shares=tuple(shares_up_to(answers.probability, PROBABILITY_BOUNDS).values()),
        lung_involvement_shares=shares_up_to(answers.involvement[:, 0], INVOLVEMENT_BOUNDS),
    )


def score_altered(
    answers: Mapping[str, Answers], slices: Sequence[CtSlice], threshold: float
) -> dict[str, AlteredScores]:
    """Score the altered test splits against the plain one."""
    figures = {name: _scores(each, slices, threshold) for name, each in answers.items()}
    plain = figures.pop("plain")
    return {
        name: AlteredScores(
            auc=own["auc"],
            accuracy=own["accuracy"],
            auc_change=own["auc"] - plain["auc"],
            accuracy_change=own["accuracy"] - plain["accuracy"],
        )
        for name, own in figures.items()
    }


def _scores(answers: Answers, slices: Sequence[CtSlice], threshold: float) -> dict[ScoreName, float]:
    """Score without intervals."""
    labels = np.array([each.label for each in slices])
    probability = answers.probability.astype(np.float64)
    values = weighted_scores(probability, labels, threshold, np.ones((len(labels), 1)))
    return {name: round(float(value[0]), 4) for name, value in values.items()}


def _by_format(answers: Answers, slices: Sequence[CtSlice], threshold: float) -> dict[str, FormatScores]:
    scores = {}
    for encoding in sorted({each.encoding or "unknown" for each in slices}):
        own = np.array([(each.encoding or "unknown") == encoding for each in slices])
        labels = np.array([each.label for each in slices])[own]
        called = answers.probability[own] >= threshold
        scores[encoding] = FormatScores(
            count=len(labels),
            positives=int(labels.sum()),
            sensitivity=round(float(called[labels == 1].mean()), 4) if labels.any() else None,
            specificity=round(float((~called)[labels == 0].mean()), 4) if not labels.all() else None,
        )
    return scores


def _blacken(each: CtSlice, finder: LungFinder) -> CtSlice:
    """Blacken everything outside the lungs' box."""
    with torch.inference_mode():
        lung = torch.sigmoid(finder(shrink(torch.from_numpy(each.grey)[None, None].float() / 255))[0])
    x0, x1, y0, y1 = (min(SLICE_SIZE, max(0, round(side * SLICE_SIZE))) for side in find_box(lung[:, 0])[0].tolist())
    grey = np.zeros_like(each.grey)
    grey[y0:y1, x0:x1] = each.grey[y0:y1, x0:x1]
    return replace(each, grey=grey)
