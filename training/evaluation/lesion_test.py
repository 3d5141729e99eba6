"""The look at official test: official and corrected labels, and the same slices altered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from service.imaging.decode import to_input
from service.model.card import Interval
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.evaluation.alterations import ALTERATIONS
from training.evaluation.answers import Answers
from training.evaluation.left_out_scores import calibration_error
from training.evaluation.scores import Scores, score
from training.network.lung_box import find_box
from training.network.lung_finder import LungFinder, shrink
from training.run.record import Record
from training.run.seeding import derive_seed


class AlteredScores(Record):
    """Scores on the altered test split, and their changes."""

    auc: float
    accuracy: float
    auc_change: float
    accuracy_change: float


@dataclass(frozen=True, slots=True)
class TestScores:
    """Scores of official test.

    Attributes:
        scores: `test` with official labels, `test_corrected` with known errors corrected or left out.
        calibration_error: with official labels, over ten equal bins.
        probability_shares: share of probabilities at or below 0.1, 0.2, ... 1.0.
    """

    scores: dict[str, Scores]
    calibration_error: Interval
    probability_shares: tuple[float, ...]


def alter(slices: Sequence[CtSlice], finder: LungFinder) -> dict[str, list[CtSlice]]:
    """Alter the test slices: as they are (`plain`), every alteration, and black outside the lungs' box."""
    altered = {"plain": list(slices)}
    for name, change in ALTERATIONS.items():
        altered[name] = [replace(each, grey=to_input(change(each.grey[np.newaxis]), SLICE_SIZE)[0]) for each in slices]
    altered["lung_box_only"] = [_blacken(each, finder) for each in slices]
    return altered


def score_test(
    answers: Answers, slices: Sequence[CtSlice], corrections: Mapping[str, int | None], threshold: float, seed: int
) -> TestScores:
    """Score the answers to the unaltered test split."""
    probability = torch.from_numpy(answers.probability)
    labels = torch.tensor([each.label for each in slices])
    true = [corrections.get(each.name, each.label) for each in slices]
    usable = torch.tensor([label is not None for label in true])
    corrected = torch.tensor([label for label in true if label is not None])
    return TestScores(
        scores={
            "test": score(probability, labels, threshold, seed),
            "test_corrected": score(probability[usable], corrected, threshold, seed),
        },
        calibration_error=_calibration_error(answers.probability.astype(np.float64), labels.numpy(), seed),
        probability_shares=tuple(round(float((answers.probability <= tenth / 10).mean()), 4) for tenth in range(1, 11)),
    )


def score_altered(
    answers: Mapping[str, Answers], slices: Sequence[CtSlice], threshold: float
) -> dict[str, AlteredScores]:
    """Score the altered test splits against the plain one."""
    labels = torch.tensor([each.label for each in slices])
    figures = {
        name: score(torch.from_numpy(each.probability), labels, threshold, 0).figures for name, each in answers.items()
    }
    plain = figures.pop("plain")
    return {
        name: AlteredScores(
            auc=own["auc"].value,
            accuracy=own["accuracy"].value,
            auc_change=own["auc"].value - plain["auc"].value,
            accuracy_change=own["accuracy"].value - plain["accuracy"].value,
        )
        for name, own in figures.items()
    }


def _blacken(each: CtSlice, finder: LungFinder) -> CtSlice:
    """Blacken everything outside the lungs' box."""
    with torch.inference_mode():
        lung = torch.sigmoid(finder(shrink(torch.from_numpy(each.grey)[None, None].float() / 255))[0])
    x0, x1, y0, y1 = (min(SLICE_SIZE, max(0, round(side * SLICE_SIZE))) for side in find_box(lung[:, 0])[0].tolist())
    grey = np.zeros_like(each.grey)
    grey[y0:y1, x0:x1] = each.grey[y0:y1, x0:x1]
    return replace(each, grey=grey)


def _calibration_error(probability: "np.ndarray", labels: "np.ndarray", seed: int) -> Interval:
    generator = np.random.default_rng(derive_seed(seed, "calibration"))
    drawn = [generator.integers(len(labels), size=len(labels)) for _ in range(1000)]
    values = [calibration_error(probability[rows], labels[rows]) for rows in drawn]
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(value=calibration_error(probability, labels), low=float(low), high=float(high))
