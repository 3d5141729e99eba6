"""Calibration and thresholds for a hospital's own labelled slices, and what they are worth on patients not seen."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedGroupKFold

from service.model.card import AnswerName, Calibration, Interval, LocalCalibration
from training.errors import TrainingError
from training.evaluation.calibration import SourceAnswers, log_odds
from training.evaluation.operating_points import RULE, choose_threshold
from training.evaluation.scores import Floats, bootstrap_weights, interval, weighted_scores

Answered: TypeAlias = AnswerName | Literal["probability"]

FEWEST: Final = 30
"""Slices of each class from which on a calibration can be fitted and judged."""

_FOLDS: Final = 5
_PENALTY: Final = 0.1
"""Of the squared distance of log slopes and offsets from no calibration, in units of one slice's log loss."""


@dataclass(frozen=True, slots=True)
class OwnAnswers:
    """A model file's answers to N slices of one source.

    Attributes:
        source: its name.
        answers: float64 (N,) by name: both answers whose product is the probability, or the probability alone.
        labels: int64 (N,), 1 is COVID.
        groups: (N,), patient of each slice.
        healthy: bool (N,), slices that are known to show no disease.
    """

    source: str
    answers: dict[Answered, NDArray[np.float64]]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    healthy: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> "OwnAnswers":
        """Return the answers to some slices."""
        answers = {name: values[rows] for name, values in self.answers.items()}
        return OwnAnswers(self.source, answers, self.labels[rows], self.groups[rows], self.healthy[rows])

    def calibrated(self, calibrations: dict[Answered, Calibration]) -> "OwnAnswers":
        """Return the same answers, calibrated."""
        applied = {
            name: np.array([calibrations[name].apply(float(p)) for p in values])
            for name, values in self.answers.items()
        }
        return OwnAnswers(self.source, applied, self.labels, self.groups, self.healthy)

    @property
    def probability(self) -> NDArray[np.float64]:
        """Probability of COVID: float64 (N,)."""
        return np.asarray(np.prod(list(self.answers.values()), axis=0), np.float64)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of the default operating point and of triage; None where the model answers the probability alone."""

    differential: float
    triage: float | None


def calibrate_to(own: OwnAnswers, date: str, seed: int) -> LocalCalibration:
    """Fit calibration and thresholds to all slices, and state their figures on patients that were left out of them.

    Args:
        own: answers to the slices.
        date: of the fit, for the record.
        seed: of folds and intervals.

    Raises:
        TrainingError: fewer than 30 slices of a class, or of too few patients.
    """
    _check(own)
    calibrations, thresholds = _fit(own)
    points = {"differential": thresholds.differential}
    lesion = {}
    if thresholds.triage is not None:
        points["triage"] = 0.0
        lesion = {"differential": 0.0, "triage": thresholds.triage}
    return LocalCalibration(
        source=own.source,
        count=len(own.labels),
        positives=int(own.labels.sum()),
        groups=len(np.unique(own.groups)),
        date=date,
        calibrations=calibrations,
        threshold=thresholds.differential,
        threshold_rule=f"{RULE} over {own.source}",
        operating_points=points,
        lesion_thresholds=lesion,
        figures=_judge(own, seed),
    )


def _check(own: OwnAnswers) -> None:
    for label, name in ((1, "COVID"), (0, "NonCOVID")):
        count = int((own.labels == label).sum())
        groups = len(np.unique(own.groups[own.labels == label]))
        if count < FEWEST:
            raise TrainingError(
                f"{own.source}: {count} usable {name} slices; a calibration needs {FEWEST} of each class"
            )
        if groups < 2:
            raise TrainingError(f"{own.source}: all {name} slices are of one patient; a calibration needs more")


def _fit(own: OwnAnswers) -> tuple[dict[Answered, Calibration], Thresholds]:
    calibrations = _fit_calibrations(own)
    calibrated = own.calibrated(calibrations)
    differential = choose_threshold({own.source: _source(calibrated, calibrated.probability)})
    triage = None
    if "lesion_probability" in calibrated.answers:
        rows = np.flatnonzero((own.labels == 1) | own.healthy) if own.healthy.any() else np.arange(len(own.labels))
        part = calibrated.take(rows)
        triage = choose_threshold({own.source: _source(part, part.answers["lesion_probability"])})
    return calibrations, Thresholds(differential, triage)


def _fit_calibrations(own: OwnAnswers) -> dict[Answered, Calibration]:
    """Fit slope and offset of every answer at once, by the log loss of the label under their product."""
    odds = np.stack([log_odds(values) for values in own.answers.values()])

    def loss(parameters: Floats) -> float:
        slopes, offsets = np.exp(parameters[: len(odds)]), parameters[len(odds) :]
        log_p = -np.logaddexp(0, -(slopes[:, None] * odds + offsets[:, None])).sum(0)
        log_not = np.log(-np.expm1(np.minimum(log_p, -1e-9)))
        fit = np.where(own.labels == 1, log_p, log_not).sum()
        return float(_PENALTY * (parameters**2).sum() - fit)

    found = minimize(loss, np.zeros(2 * len(odds)), method="L-BFGS-B").x
    rule = f"slope and offset by the log loss on {len(own.labels)} slices of {own.source}"
    return {
        name: Calibration(slope=float(np.exp(found[i])), offset=float(found[len(odds) + i]), rule=rule)
        for i, name in enumerate(own.answers)
    }


def _source(own: OwnAnswers, probability: NDArray[np.float64]) -> SourceAnswers:
    return SourceAnswers(log_odds(probability), own.labels, own.groups)


def _judge(own: OwnAnswers, seed: int) -> dict[str, Interval]:
    """Score every slice with a calibration and thresholds that its patient had no part in."""
    probability, called = np.zeros(len(own.labels)), np.zeros((2, len(own.labels)), np.bool_)
    folds = min(_FOLDS, *(len(np.unique(own.groups[own.labels == label])) for label in (0, 1)))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    for seen, rest in splitter.split(own.labels, own.labels, own.groups):
        if len(np.unique(own.labels[seen])) < 2:
            raise TrainingError(f"{own.source}: too few patients to judge a calibration on some and fit it to others")
        calibrations, thresholds = _fit(own.take(seen))
        judged = own.take(rest).calibrated(calibrations)
        probability[rest] = judged.probability
        called[0, rest] = judged.probability >= thresholds.differential
        if thresholds.triage is not None:
            called[1, rest] = judged.answers["lesion_probability"] >= thresholds.triage
    weights = bootstrap_weights(own.labels, seed, own.groups.tolist())
    figures = weighted_scores(probability, own.labels, 0.5, weights)
    kept = {str(name): interval(figures[name]) for name in ("auc", "log_loss", "brier", "calibration_error")}
    points = ("differential", "triage") if "lesion_probability" in own.answers else ("differential",)
    for row, point in enumerate(points):
        kept |= _rates(point, called[row], own, weights)
    return kept


def _rates(point: str, called: NDArray[np.bool_], own: OwnAnswers, weights: Floats) -> dict[str, Interval]:
    """Sensitivity and specificity of an operating point; triage is judged on healthy slices where some are known."""
    negative = own.labels == 0
    if point == "triage" and own.healthy.any():
        negative = own.healthy
    rates = {}
    for name, members, right in (("sensitivity", own.labels == 1, called), ("specificity", negative, ~called)):
        counted = weights[members].sum(0)
        rates[f"{point} {name}"] = interval((right[members] @ weights[members]) / np.maximum(counted, 1))
    return rates


def uncalibrated_figures(own: OwnAnswers, threshold: float, seed: int) -> dict[str, Interval]:
    """Score the released model on the same slices, for comparison."""
    weights = bootstrap_weights(own.labels, seed, own.groups.tolist())
    figures = weighted_scores(own.probability, own.labels, threshold, weights)
    kept = {str(name): interval(figures[name]) for name in ("auc", "log_loss", "brier", "calibration_error")}
    return kept | _rates("differential", own.probability >= threshold, own, weights)
