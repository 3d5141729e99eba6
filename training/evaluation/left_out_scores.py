"""Calibration, thresholds and scores from predictions for sources that were left out of training."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from pydantic import Field
from sklearn.metrics import roc_auc_score

from service.model.card import AnswerName, Calibration, Interval
from training.data.ct_slices import CtSlice
from training.errors import TrainingError
from training.evaluation.by_source import (
    SourcePredictions,
    by_negatives,
    is_covid,
    predictions_by_source,
    shows_lesion,
)
from training.evaluation.calibration import FEWEST_OF_CLASS, CalibrationTrial, calibrated, fit_calibrations
from training.evaluation.lesion_scores import LesionScores, score_lesions, strongest_inside_lung
from training.evaluation.operating_points import (
    PURPOSES,
    OperatingPoint,
    Rates,
    choose_operating_point,
    choose_threshold,
    score_rates,
)
from training.evaluation.predictions import Predictions
from training.evaluation.scores import ScoreName, figures_with_intervals
from training.run.record import Record
from training.run.seeding import derive_seed


class NestedRates(Record):
    """Rates of one source at a threshold that was chosen on the other left-out sources, like in an unseen hospital.

    Attributes:
        threshold: chosen by the same rule.
    """

    threshold: float
    rates: Rates


class SourceScores(Record):
    """Scores on one left-out source, each with a 95 % bootstrap interval over its groups (patients, papers).

    Attributes:
        groups: number of patients or papers; equal to `count` if they are unknown.
        figures: of the probability, at the differential threshold.
        answers: AUC of each probability alone, by class of the source's negatives.
        nested: at a threshold chosen without this source; None if it is the only one.
    """

    count: int
    positives: int
    groups: int
    figures: dict[ScoreName, Interval]
    answers: dict[str, dict[AnswerName, float]] = Field(default_factory=dict)
    nested: NestedRates | None = None


class ClearScores(Record):
    """Mean predictions for slices of a source with clear lungs."""

    count: int
    mean_probability: float
    mean_lesion_probability: float


class LeftOutJudgement(Record):
    """Calibration, thresholds and scores that follow from the left-out sources.

    Attributes:
        calibration: of 2.0, on the probability; None if each probability has its own.
        calibrations: of each probability of the shipped network, from predictions of the left-out network.
        calibration_trials: kinds of calibration that it was chosen from, of each probability.
        operating_points: `differential`, the default, and `triage`.
        sources: scores by source, calibrated, at the differential threshold.
        clear: predictions for clear lungs, by source.
        lesions: agreement of the maps with masks of left-out volumes.
        strongest_inside_lung: by source with labels, share of COVID slices whose strongest cell lies inside a lung
            found by the lung finder, another network.
    """

    calibration: Calibration | None = None
    calibrations: dict[AnswerName, Calibration] = Field(default_factory=dict)
    calibration_trials: dict[AnswerName, dict[str, CalibrationTrial]] = Field(default_factory=dict)
    operating_points: dict[str, OperatingPoint]
    sources: dict[str, SourceScores]
    clear: dict[str, ClearScores] = Field(default_factory=dict)
    lesions: LesionScores
    strongest_inside_lung: dict[str, float]

    @property
    def threshold(self) -> float:
        """The default threshold of the probability."""
        return self.operating_points["differential"].threshold

    @property
    def learned(self) -> bool:
        """Whether the AUC on any left-out source of some size lies above 0.5 with 95 % confidence."""
        return any(
            source.figures["auc"].low > 0.5
            and min(source.positives, source.count - source.positives) >= FEWEST_OF_CLASS
            for source in self.sources.values()
        )


def judge_left_out(predictions: Predictions, slices: Sequence[CtSlice], seed: int) -> LeftOutJudgement:
    """Calibrate, choose thresholds and score on slices that the network was not trained on."""
    calibrations, trials = fit_calibrations(predictions, slices)
    predictions = calibrated(predictions, calibrations)
    sources = predictions_by_source(is_covid, slices, predictions.probability)
    if not sources:
        raise TrainingError("no left-out source has slices of both classes; pass --leave-out SOURCE with both")
    points = {name: choose_operating_point(name, predictions, slices, seed) for name in PURPOSES}
    threshold = points["differential"].threshold
    aucs = _aucs_of_each_probability(predictions, slices)
    return LeftOutJudgement(
        calibrations=calibrations,
        calibration_trials=trials,
        operating_points={str(name): point for name, point in points.items()},
        sources={name: _score_source(name, sources, threshold, seed, aucs[name]) for name in sources},
        clear=_score_clear(predictions, slices),
        lesions=score_lesions(predictions, slices),
        strongest_inside_lung=strongest_inside_lung(predictions, slices),
    )


def _score_source(
    name: str,
    sources: Mapping[str, SourcePredictions],
    threshold: float,
    seed: int,
    aucs: Mapping[str, dict[AnswerName, float]],
) -> SourceScores:
    """Score one source; intervals resample its groups, not its slices, because slices of a patient are alike."""
    source = sources[name]
    weights = source.resamples(derive_seed(seed, "left-out"))
    return SourceScores(
        count=len(source.labels),
        positives=int(source.labels.sum()),
        groups=len(np.unique(source.groups)),
        figures=figures_with_intervals(source.probability, source.labels, threshold, weights),
        answers=dict(aucs),
        nested=_nested(name, sources, seed),
    )


def _nested(name: str, sources: Mapping[str, SourcePredictions], seed: int) -> NestedRates | None:
    """Score a source at the threshold that the rule chooses on all others."""
    others = {other: source for other, source in sources.items() if other != name}
    if not others:
        return None
    threshold = choose_threshold(others)
    return NestedRates(threshold=threshold, rates=score_rates(sources[name], threshold, seed))


def _aucs_of_each_probability(
    predictions: Predictions, slices: Sequence[CtSlice]
) -> dict[str, dict[str, dict[AnswerName, float]]]:
    """Compute the AUC of each probability alone, by source and class of its negatives."""
    aucs: dict[str, dict[str, dict[AnswerName, float]]] = defaultdict(lambda: defaultdict(dict))
    for name in get_args(AnswerName):
        for source_name, negatives, source in by_negatives(slices, getattr(predictions, name)):
            auc = roc_auc_score(source.labels, source.log_odds)
            aucs[source_name][negatives][name] = round(float(auc), 4)
    return aucs


def _score_clear(predictions: Predictions, slices: Sequence[CtSlice]) -> dict[str, ClearScores]:
    """Average the predictions for slices without lesion, by source."""
    clear: dict[str, list[int]] = defaultdict(list)
    for index, slice_ in enumerate(slices):
        if shows_lesion(slice_) == 0:
            clear[slice_.source].append(index)
    return {
        source: ClearScores(
            count=len(places),
            mean_probability=round(float(predictions.probability[places].mean()), 4),
            mean_lesion_probability=round(float(predictions.lesion_probability[places].mean()), 4),
        )
        for source, places in sorted(clear.items())
    }
