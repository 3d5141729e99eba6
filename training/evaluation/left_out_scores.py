"""Calibration, threshold and scores from answers to sources that were left out of training."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from service.model.card import Interval
from training.data.ct_slices import CtSlice
from training.errors import TrainingError
from training.evaluation.answers import Answers
from training.evaluation.calibration import (
    CalibrationTrial,
    PlattCalibration,
    SourceAnswers,
    calibrated,
    choose_calibration,
)
from training.evaluation.heatmap_check import strongest_inside_lung, strongest_inside_segmented_lung
from training.evaluation.lesion_scores import LesionScores, score_lesions
from training.evaluation.scores import ScoreName, figures_with_intervals
from training.run.record import Record
from training.run.seeding import derive_seed

RESAMPLES: Final = 1000
THRESHOLD_RESAMPLES: Final = 200
SCREENING_SENSITIVITY: Final = 0.90

THRESHOLD_TOLERANCE: Final = 0.02
"""Balanced accuracy by which another threshold must be better than the one nearest to 0.5."""


class SourceScores(Record):
    """Scores on one left-out source, each with a 95 % bootstrap interval over its groups (patients, papers).

    Attributes:
        groups: number of patients or papers; equal to `count` where the source does not tell them.
        figures: at the threshold.
    """

    count: int
    positives: int
    groups: int
    figures: dict[ScoreName, Interval]


class OperatingPoint(Record):
    """A threshold, its rule, and its mean sensitivity and specificity over left-out sources.

    Attributes:
        low, high: 95 % of the thresholds that the same rule chooses on resamples of the patients; None in old records.
    """

    threshold: float
    rule: str
    sensitivity: float
    specificity: float
    low: float | None = None
    high: float | None = None


class LeftOutJudgement(Record):
    """Everything that answers to left-out sources decide and say.

    Attributes:
        calibration: for the shipped network, from the answers of the network that never saw these sources.
        calibration_trials: kinds of calibration that it was chosen from.
        operating_points: `balanced`, the default, and `screening`.
        sources: scores by source, calibrated, at the balanced threshold.
        lesions: agreement of the maps with masks of left-out volumes.
        strongest_inside_lung: by source with labels, share of COVID slices whose strongest cell lies inside a lung as
            the lung finder, another network, sees it.
        strongest_inside_segmented_lung: the same with lungs by a classic segmentation.
    """

    calibration: PlattCalibration
    calibration_trials: dict[str, CalibrationTrial] = Field(default_factory=dict)
    operating_points: dict[str, OperatingPoint]
    sources: dict[str, SourceScores]
    lesions: LesionScores
    strongest_inside_lung: dict[str, float]
    strongest_inside_segmented_lung: dict[str, float] = Field(default_factory=dict)

    @property
    def threshold(self) -> float:
        """The default threshold."""
        return self.operating_points["balanced"].threshold


_Choose: TypeAlias = Callable[[Mapping[str, SourceAnswers], PlattCalibration], float]


def judge_left_out(answers: Answers, slices: Sequence[CtSlice], seed: int) -> LeftOutJudgement:
    """Calibrate, choose thresholds and score on answers to slices that the network was not trained on.

    Raises:
        TrainingError: no left-out source has both classes, or no left-out slice has a lesion mask.
    """
    sources = by_source(answers, slices)
    if not sources:
        raise TrainingError("no left-out source has slices of both classes; pass --leave-out SOURCE with both")
    platt, trials = choose_calibration(sources)
    rules = {
        "balanced": (
            choose_balanced_threshold,
            f"nearest to 0.5 of those with a mean balanced accuracy within {THRESHOLD_TOLERANCE} of the best",
        ),
        "screening": (choose_screening_threshold, "highest with mean sensitivity >= 0.90"),
    }
    points = {name: _point(sources, platt, *rule, seed) for name, rule in rules.items()}
    threshold = points["balanced"].threshold
    return LeftOutJudgement(
        calibration=platt,
        calibration_trials=trials,
        operating_points=points,
        sources={name: score_source(each, platt, threshold, seed) for name, each in sources.items()},
        lesions=score_lesions(answers, slices),
        strongest_inside_lung=strongest_inside_lung(answers, slices),
        strongest_inside_segmented_lung=strongest_inside_segmented_lung(answers, slices),
    )


def by_source(answers: Answers, slices: Sequence[CtSlice]) -> dict[str, SourceAnswers]:
    """Split answers by source; sources with one class, or without labels, are left out."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, each in enumerate(slices):
        if each.kind == "labelled" and each.label is not None:
            members[each.source].append(index)
    odds = answers.log_odds
    found = {
        name: SourceAnswers(
            odds[own],
            np.array([slices[i].label for i in own], np.int64),
            np.array([slices[i].group for i in own], np.str_),
        )
        for name, own in sorted(members.items())
    }
    return {name: each for name, each in found.items() if 0 < each.labels.sum() < len(each.labels)}


def choose_balanced_threshold(sources: Mapping[str, SourceAnswers], platt: PlattCalibration) -> float:
    """Choose a threshold to two decimals: nearest to 0.5 of those with nearly the best mean balanced accuracy.

    It depends less on the sample than the best threshold does, and is better on sources that chose nothing
    (docs/experiments.md).
    """
    candidates = np.round(np.arange(0.02, 0.99, 0.01), 2)
    mean = _mean_rates(sources, platt, candidates).mean(0)
    good = candidates[mean >= mean.max() - THRESHOLD_TOLERANCE]
    return float(good[np.abs(good - 0.5).argmin()])


def choose_screening_threshold(sources: Mapping[str, SourceAnswers], platt: PlattCalibration) -> float:
    """Choose the highest threshold whose mean sensitivity over sources is at least 0.90, to three decimals."""
    candidates = np.round(np.arange(0.001, 1, 0.001), 3)
    sensitive = _mean_rates(sources, platt, candidates)[0] >= SCREENING_SENSITIVITY
    return float(candidates[sensitive][-1] if sensitive.any() else candidates[0])


def score_source(answers: SourceAnswers, platt: PlattCalibration, threshold: float, seed: int) -> SourceScores:
    """Score one source; intervals resample its groups, not its slices, because slices of a patient are alike."""
    rows = [np.arange(len(answers.labels)), *_resamples(answers, RESAMPLES, derive_seed(seed, "left-out"))]
    weights = np.stack([np.bincount(row, minlength=len(answers.labels)) for row in rows], axis=1).astype(np.float64)
    return SourceScores(
        count=len(answers.labels),
        positives=int(answers.labels.sum()),
        groups=len(np.unique(answers.groups)),
        figures=figures_with_intervals(calibrated(answers.log_odds, platt), answers.labels, threshold, weights),
    )


def _resamples(answers: SourceAnswers, count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw groups with replacement, with all their slices, until `count` resamples have both classes."""
    names, group = np.unique(answers.groups, return_inverse=True)
    members = [np.flatnonzero(group == number) for number in range(len(names))]
    generator = np.random.default_rng(seed)
    while count:
        drawn = np.concatenate([members[number] for number in generator.integers(len(names), size=len(names))])
        if 0 < answers.labels[drawn].sum() < len(drawn):
            count -= 1
            yield drawn


def _point(
    sources: Mapping[str, SourceAnswers], platt: PlattCalibration, choose: _Choose, rule: str, seed: int
) -> OperatingPoint:
    threshold = choose(sources, platt)
    sensitivity, specificity = _mean_rates(sources, platt, np.array([threshold]))[:, 0]
    draws = [
        _resamples(each, THRESHOLD_RESAMPLES, derive_seed(seed, "threshold", name)) for name, each in sources.items()
    ]
    chosen = [
        choose({name: _take(each, rows) for (name, each), rows in zip(sources.items(), resample, strict=True)}, platt)
        for resample in zip(*draws, strict=True)
    ]
    low, high = np.percentile(chosen, [2.5, 97.5])
    return OperatingPoint(
        threshold=threshold,
        rule=f"{rule} over left-out {', '.join(sources)}",
        sensitivity=round(float(sensitivity), 4),
        specificity=round(float(specificity), 4),
        low=round(float(low), 3),
        high=round(float(high), 3),
    )


def _take(answers: SourceAnswers, rows: NDArray[np.int64]) -> SourceAnswers:
    return SourceAnswers(answers.log_odds[rows], answers.labels[rows], answers.groups[rows])


def _mean_rates(
    sources: Mapping[str, SourceAnswers], platt: PlattCalibration, thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over sources of sensitivity and specificity at each of T thresholds: (2, T)."""
    rates = np.array([_rates(each, platt, thresholds) for each in sources.values()])
    return np.asarray(rates.mean(0), np.float64)


def _rates(
    answers: SourceAnswers, platt: PlattCalibration, thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    below = []
    for label in (1, 0):
        own = np.sort(calibrated(answers.log_odds[answers.labels == label], platt))
        below.append(np.searchsorted(own, thresholds, side="left") / len(own))
    return 1 - below[0], below[1]
