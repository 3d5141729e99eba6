"""Calibration, thresholds and scores from answers to sources that were left out of training."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, get_args

import numpy as np
from pydantic import Field

from service.model.card import AnswerName, Interval
from training.data.ct_slices import CtSlice
from training.errors import TrainingError
from training.evaluation.answers import Answers
from training.evaluation.calibration import (
    CalibrationTrial,
    PlattCalibration,
    SourceAnswers,
    choose_calibration,
    fit_platt,
)
from training.evaluation.heatmap_check import strongest_inside_lung, strongest_inside_segmented_lung
from training.evaluation.lesion_scores import LesionScores, score_lesions
from training.evaluation.operating_points import (
    PURPOSES,
    RESAMPLES,
    RULE,
    OperatingPoint,
    PointName,
    Rates,
    choose_threshold,
    mean_rates,
    resamples,
    score_rates,
    threshold_range,
)
from training.evaluation.questions import BY_NEGATIVES, ask, is_covid, shows_lesion
from training.evaluation.scores import ScoreName, figures_with_intervals, weighted_auc
from training.run.record import Record
from training.run.seeding import derive_seed

_SURE_OF_LESION: Final = 0.5
"""Lesion probability from which on a slice counts for the calibration of `covid_given_lesion`."""

_FEWEST: Final = 10
"""Slices of each class that a source needs to take part in a calibration, and to say that a network learned."""


class NestedRates(Record):
    """Rates of one source at a threshold that was chosen on the other left-out sources, as in a hospital not seen.

    Attributes:
        threshold: chosen by the same rule.
    """

    threshold: float
    rates: Rates


class SourceScores(Record):
    """Scores on one left-out source, each with a 95 % bootstrap interval over its groups (patients, papers).

    Attributes:
        groups: number of patients or papers; equal to `count` where the source does not tell them.
        figures: of the probability, at the differential threshold.
        answers: AUC of each answer alone, by class of the source's negatives.
        nested: at a threshold that this source did not choose; None if it is the only one.
    """

    count: int
    positives: int
    groups: int
    figures: dict[ScoreName, Interval]
    answers: dict[str, dict[AnswerName, float]] = Field(default_factory=dict)
    nested: NestedRates | None = None


class ClearScores(Record):
    """Answers to slices of a source whose lungs are clear."""

    count: int
    mean_probability: float
    mean_lesion_probability: float


class LeftOutJudgement(Record):
    """Everything that answers to left-out sources decide and say.

    Attributes:
        calibration: of 2.0, on the probability; None where each answer has its own.
        calibrations: of each answer, for the shipped network, from the answers of the network that never saw these
            sources.
        calibration_trials: kinds of calibration that it was chosen from, of each answer.
        operating_points: `differential`, the default, and `triage`.
        sources: scores by source, calibrated, at the differential threshold.
        clear: answers to clear lungs, by source.
        lesions: agreement of the maps with masks of left-out volumes.
        strongest_inside_lung: by source with labels, share of COVID slices whose strongest cell lies inside a lung as
            the lung finder, another network, sees it.
        strongest_inside_segmented_lung: the same with lungs by a classic segmentation.
    """

    calibration: PlattCalibration | None = None
    calibrations: dict[AnswerName, PlattCalibration] = Field(default_factory=dict)
    calibration_trials: dict[AnswerName, dict[str, CalibrationTrial]] = Field(default_factory=dict)
    operating_points: dict[str, OperatingPoint]
    sources: dict[str, SourceScores]
    clear: dict[str, ClearScores] = Field(default_factory=dict)
    lesions: LesionScores
    strongest_inside_lung: dict[str, float]
    strongest_inside_segmented_lung: dict[str, float] = Field(default_factory=dict)

    @property
    def threshold(self) -> float:
        """The default threshold of the probability."""
        return self.operating_points["differential"].threshold

    @property
    def learned(self) -> bool:
        """Whether the AUC on any left-out source of some size lies above 0.5 with 95 % confidence."""
        return any(
            source.figures["auc"].low > 0.5 and min(source.positives, source.count - source.positives) >= _FEWEST
            for source in self.sources.values()
        )


def judge_left_out(answers: Answers, slices: Sequence[CtSlice], seed: int) -> LeftOutJudgement:
    """Calibrate, choose thresholds and score on answers to slices that the network was not trained on.

    Raises:
        TrainingError: no left-out source has both classes, or no left-out slice has a lesion mask.
    """
    calibrations, trials = calibrate_answers(answers, slices)
    answers = calibrated(answers, calibrations)
    sources = ask(is_covid, slices, answers.probability)
    if not sources:
        raise TrainingError("no left-out source has slices of both classes; pass --leave-out SOURCE with both")
    points = {name: _point(name, answers, slices, seed) for name in PURPOSES}
    threshold = points["differential"].threshold
    alone = _answers_alone(answers, slices)
    return LeftOutJudgement(
        calibrations=calibrations,
        calibration_trials=trials,
        operating_points={str(name): point for name, point in points.items()},
        sources={
            name: score_source(own, threshold, seed, alone[name]).model_copy(
                update={"nested": _nested(name, sources, seed)}
            )
            for name, own in sources.items()
        },
        clear=_score_clear(answers, slices),
        lesions=score_lesions(answers, slices),
        strongest_inside_lung=strongest_inside_lung(answers, slices),
        strongest_inside_segmented_lung=strongest_inside_segmented_lung(answers, slices),
    )


def calibrate_answers(
    answers: Answers, slices: Sequence[CtSlice]
) -> tuple[dict[AnswerName, PlattCalibration], dict[AnswerName, dict[str, CalibrationTrial]]]:
    """Calibrate each answer of a network without calibration, on the slices of which its truth is known.

    The log odds of the surest of thousands of cells are no slice's, so slope and offset are always fitted to them.
    `covid_given_lesion` is calibrated where the calibrated network sees a lesion, and not on healthy people.
    """
    of_lesion, lesion_trials = fit_platt(ask(shows_lesion, slices, answers.lesion_probability, _FEWEST))
    sure = of_lesion.apply(answers.lesion_probability) >= _SURE_OF_LESION
    sick = [
        replace(each, label=each.label if seen and each.finding != "healthy" else None)
        for each, seen in zip(slices, sure, strict=True)
    ]
    of_covid, covid_trials = choose_calibration(ask(is_covid, sick, answers.covid_given_lesion, _FEWEST))
    return (
        {"lesion_probability": of_lesion, "covid_given_lesion": of_covid},
        {"lesion_probability": lesion_trials, "covid_given_lesion": covid_trials},
    )


def calibrated(answers: Answers, calibrations: Mapping[AnswerName, PlattCalibration]) -> Answers:
    """Return the answers of a network without calibration as the network with it would give them."""
    return replace(
        answers,
        lesion_probability=calibrations["lesion_probability"].apply(answers.lesion_probability),
        covid_given_lesion=calibrations["covid_given_lesion"].apply(answers.covid_given_lesion),
    )


def score_source(
    answers: SourceAnswers,
    threshold: float,
    seed: int,
    alone: Mapping[str, Mapping[AnswerName, float]] | None = None,
) -> SourceScores:
    """Score one source; intervals resample its groups, not its slices, because slices of a patient are alike."""
    rows = [np.arange(len(answers.labels)), *resamples(answers, RESAMPLES, derive_seed(seed, "left-out"))]
    weights = np.stack([np.bincount(row, minlength=len(answers.labels)) for row in rows], axis=1).astype(np.float64)
    return SourceScores(
        count=len(answers.labels),
        positives=int(answers.labels.sum()),
        groups=len(np.unique(answers.groups)),
        figures=figures_with_intervals(answers.probability, answers.labels, threshold, weights),
        answers={negatives: dict(figures) for negatives, figures in (alone or {}).items()},
    )


def _nested(name: str, sources: Mapping[str, SourceAnswers], seed: int) -> NestedRates | None:
    """Score a source at the threshold that the rule chooses on all others."""
    others = {other: answers for other, answers in sources.items() if other != name}
    if not others:
        return None
    threshold = choose_threshold(others)
    return NestedRates(threshold=threshold, rates=score_rates(sources[name], threshold, seed))


def _point(name: PointName, answers: Answers, slices: Sequence[CtSlice], seed: int) -> OperatingPoint:
    """Choose the threshold of one purpose: of the probability, or of the lesion probability for triage."""
    of_lesion = name == "triage"
    probability = answers.lesion_probability if of_lesion else answers.probability
    # without a source that tells lesion from none, labels have to do
    sources = (ask(shows_lesion, slices, probability) if of_lesion else {}) or ask(is_covid, slices, probability)
    chosen = choose_threshold(sources)
    sensitivity, specificity = mean_rates(sources, np.array([chosen]))[:, 0]
    low, high = threshold_range(sources, choose_threshold, seed)
    rates: dict[str, dict[str, Rates]] = {}
    for negatives, question in BY_NEGATIVES.items():
        for source, own in ask(question, slices, probability).items():
            rates.setdefault(source, {})[negatives] = score_rates(own, chosen, seed)
    return OperatingPoint(
        purpose=PURPOSES[name],
        threshold=0.0 if of_lesion else chosen,
        lesion_threshold=chosen if of_lesion else 0.0,
        rule=f"{RULE} over left-out {', '.join(sources)}",
        sensitivity=round(float(sensitivity), 4),
        specificity=round(float(specificity), 4),
        low=low,
        high=high,
        sources=rates,
    )


def _answers_alone(answers: Answers, slices: Sequence[CtSlice]) -> dict[str, dict[str, dict[AnswerName, float]]]:
    """AUC of each answer alone, by source and class of its negatives."""
    found: dict[str, dict[str, dict[AnswerName, float]]] = defaultdict(lambda: defaultdict(dict))
    for name in get_args(AnswerName):
        for negatives, question in BY_NEGATIVES.items():
            for source, own in ask(question, slices, getattr(answers, name)).items():
                auc = weighted_auc(own.log_odds, own.labels, np.ones((len(own.labels), 1)))
                found[source][negatives][name] = round(float(auc[0]), 4)
    return found


def _score_clear(answers: Answers, slices: Sequence[CtSlice]) -> dict[str, ClearScores]:
    """Average the answers to slices without lesion, by source."""
    clear: dict[str, list[int]] = defaultdict(list)
    for index, each in enumerate(slices):
        if shows_lesion(each) == 0:
            clear[each.source].append(index)
    return {
        source: ClearScores(
            count=len(own),
            mean_probability=round(float(answers.probability[own].mean()), 4),
            mean_lesion_probability=round(float(answers.lesion_probability[own].mean()), 4),
        )
        for source, own in sorted(clear.items())
    }
