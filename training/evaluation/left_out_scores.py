"""Calibration, threshold and scores from answers to sources that were left out of training."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.linear_model import LogisticRegression

from service.model.card import Interval
from training.data.ct_slices import CtSlice
from training.errors import TrainingError
from training.evaluation.answers import Answers
from training.evaluation.heatmap_check import strongest_inside_lung, strongest_inside_segmented_lung
from training.evaluation.lesion_scores import LesionScores, score_lesions
from training.evaluation.scores import ScoreName, figures_with_intervals
from training.run.record import Record
from training.run.seeding import derive_seed

RESAMPLES: Final = 1000
THRESHOLD_RESAMPLES: Final = 200
SCREENING_SENSITIVITY: Final = 0.90


class PlattCalibration(Record):
    """Calibrated log odds are slope times the network's plus offset (Platt 1999), fitted to left-out sources."""

    slope: float
    offset: float
    rule: str


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
        operating_points: `balanced`, the default, and `screening`.
        sources: scores by source, calibrated, at the balanced threshold.
        lesions: agreement of the maps with masks of left-out volumes.
        strongest_inside_lung: by source with labels, share of COVID slices whose strongest cell lies inside a lung as
            the lung finder, another network, sees it.
        strongest_inside_segmented_lung: the same with lungs by a classic segmentation.
    """

    calibration: PlattCalibration
    operating_points: dict[str, OperatingPoint]
    sources: dict[str, SourceScores]
    lesions: LesionScores
    strongest_inside_lung: dict[str, float]
    strongest_inside_segmented_lung: dict[str, float] = Field(default_factory=dict)

    @property
    def threshold(self) -> float:
        """The default threshold."""
        return self.operating_points["balanced"].threshold


@dataclass(frozen=True, slots=True)
class SourceAnswers:
    """Answers to one source: log odds of the network, labels and groups of the same slices, (N,) each."""

    log_odds: NDArray[np.float64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]


_Choose: TypeAlias = Callable[[Mapping[str, SourceAnswers], PlattCalibration], float]


def judge_left_out(answers: Answers, slices: Sequence[CtSlice], seed: int) -> LeftOutJudgement:
    """Calibrate, choose thresholds and score on answers to slices that the network was not trained on.

    Raises:
        TrainingError: no left-out source has both classes, or no left-out slice has a lesion mask.
    """
    sources = by_source(answers, slices)
    if not sources:
        raise TrainingError("no left-out source has slices of both classes; pass --leave-out SOURCE with both")
    platt = fit_platt(sources)
    rules = {
        "balanced": (choose_balanced_threshold, "highest balanced accuracy of the worst source"),
        "screening": (choose_screening_threshold, "highest with mean sensitivity >= 0.90"),
    }
    points = {name: _point(sources, platt, *rule, seed) for name, rule in rules.items()}
    threshold = points["balanced"].threshold
    return LeftOutJudgement(
        calibration=platt,
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


def fit_platt(sources: Mapping[str, SourceAnswers]) -> PlattCalibration:
    """Fit slope and offset so that every source and both its classes count the same."""
    odds = np.concatenate([each.log_odds for each in sources.values()])
    labels = np.concatenate([each.labels for each in sources.values()])
    weights = np.concatenate([_balanced(each.labels) for each in sources.values()])
    # a weak penalty, so that the slope is finite where the classes are separated
    fitted = LogisticRegression(C=100).fit(odds[:, None], labels, sample_weight=weights)
    return PlattCalibration(
        slope=float(fitted.coef_[0, 0]),
        offset=float(fitted.intercept_[0]),
        rule=f"logistic regression on answers to left-out {', '.join(sources)}, sources and classes weighted equally",
    )


def calibrated(log_odds: NDArray[np.float64], platt: PlattCalibration) -> NDArray[np.float64]:
    """Return probabilities of COVID."""
    return 1 / (1 + np.exp(-(platt.slope * log_odds + platt.offset)))


def choose_balanced_threshold(sources: Mapping[str, SourceAnswers], platt: PlattCalibration) -> float:
    """Choose the threshold whose worst source has the highest balanced accuracy, to two decimals.

    The middle of all thresholds within 0.01 of the best one is taken: it moves least with the sample.
    """
    candidates = np.round(np.arange(0.02, 0.99, 0.01), 2)
    worst = np.min([_rates(each, platt, candidates).mean(axis=0) for each in sources.values()], axis=0)
    best = np.flatnonzero(worst >= worst.max() - 0.01)
    return float(candidates[best[len(best) // 2]])


def choose_screening_threshold(sources: Mapping[str, SourceAnswers], platt: PlattCalibration) -> float:
    """Choose the highest threshold whose mean sensitivity over sources is at least 0.90, to two decimals."""
    candidates = np.round(np.arange(0.99, 0.0, -0.01), 2)
    sensitivity = np.mean([_rates(each, platt, candidates)[0] for each in sources.values()], axis=0)
    reached = np.flatnonzero(sensitivity >= SCREENING_SENSITIVITY)
    return float(candidates[reached[0] if len(reached) else -1])


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
    at = np.array([threshold])
    sensitivity, specificity = np.mean([_rates(each, platt, at)[:, 0] for each in sources.values()], axis=0)
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
        low=round(float(low), 2),
        high=round(float(high), 2),
    )


def _take(answers: SourceAnswers, rows: NDArray[np.int64]) -> SourceAnswers:
    return SourceAnswers(answers.log_odds[rows], answers.labels[rows], answers.groups[rows])


def _rates(answers: SourceAnswers, platt: PlattCalibration, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute sensitivity and specificity at each threshold: float64 (2, thresholds)."""
    called = calibrated(answers.log_odds, platt) >= thresholds[:, None]
    return np.stack([called[:, answers.labels == 1].mean(axis=1), (~called)[:, answers.labels == 0].mean(axis=1)])


def _balanced(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    positives = labels.mean()
    return np.asarray(np.where(labels == 1, 0.5 / positives, 0.5 / (1 - positives)) / len(labels), np.float64)
