"""Calibration and thresholds fitted to a hospital's labelled slices, with their scores on unseen patients."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedGroupKFold

from service.model.card import AnswerName, Calibration, Interval, LocalCalibration
from training.errors import TrainingError
from training.evaluation.by_source import SourcePredictions, log_odds
from training.evaluation.operating_points import RULE, choose_threshold
from training.evaluation.scores import Floats, bootstrap_weights, interval, weighted_scores

ProbabilityName: TypeAlias = AnswerName | Literal["probability"]

FEWEST: Final = 30
"""Fewest slices of each class for a calibration."""

_FOLDS: Final = 5
_PENALTY: Final = 0.1
"""Of the squared distance of log slopes and offsets from no calibration, in units of one slice's log loss."""


@dataclass(frozen=True, slots=True)
class LocalPredictions:
    """Predictions of a model file for N slices of one source.

    Attributes:
        source: its name.
        probabilities: float64 (N,) by name: both factors of the probability, or the probability alone.
        labels: int64 (N,), 1 is COVID.
        groups: (N,), patient of each slice.
        healthy: bool (N,), slices that are known to show no disease.
    """

    source: str
    probabilities: dict[ProbabilityName, NDArray[np.float64]]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    healthy: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> "LocalPredictions":
        """Return the predictions for some slices."""
        probabilities = {name: values[rows] for name, values in self.probabilities.items()}
        return LocalPredictions(self.source, probabilities, self.labels[rows], self.groups[rows], self.healthy[rows])

    def calibrated(self, calibrations: dict[ProbabilityName, Calibration]) -> "LocalPredictions":
        """Return the same predictions, calibrated."""
        applied = {
            name: np.array([calibrations[name].apply(float(p)) for p in values])
            for name, values in self.probabilities.items()
        }
        return replace(self, probabilities=applied)

    @property
    def probability(self) -> NDArray[np.float64]:
        """Probability of COVID: float64 (N,)."""
        return np.asarray(np.prod(list(self.probabilities.values()), axis=0), np.float64)


def calibrate_to(local: LocalPredictions, date: str, seed: int) -> LocalCalibration:
    """Fit calibration and thresholds to all slices, and score them on patients left out of the fit."""
    _check(local)
    calibrations, thresholds = _fit(local)
    of_lesion = {point: threshold if point == "triage" else 0.0 for point, threshold in thresholds.items()}
    return LocalCalibration(
        source=local.source,
        count=len(local.labels),
        positives=int(local.labels.sum()),
        groups=len(np.unique(local.groups)),
        date=date,
        calibrations=calibrations,
        threshold=thresholds["differential"],
        threshold_rule=f"{RULE} over {local.source}",
        operating_points={point: t if point == "differential" else 0.0 for point, t in thresholds.items()},
        lesion_thresholds=of_lesion if "triage" in thresholds else {},
        figures=_cross_validate(local, seed),
    )


def uncalibrated_figures(local: LocalPredictions, threshold: float, seed: int) -> dict[str, Interval]:
    """Score the released model on the same slices, for comparison."""
    return _figures(local.probability, {"differential": local.probability >= threshold}, local, seed)


def _check(local: LocalPredictions) -> None:
    for label, name in ((1, "COVID"), (0, "NonCOVID")):
        count = int((local.labels == label).sum())
        groups = len(np.unique(local.groups[local.labels == label]))
        if count < FEWEST:
            raise TrainingError(
                f"{local.source}: {count} usable {name} slices; a calibration needs {FEWEST} of each class"
            )
        if groups < 2:
            raise TrainingError(f"{local.source}: all {name} slices are of one patient; a calibration needs more")


def _fit(local: LocalPredictions) -> tuple[dict[ProbabilityName, Calibration], dict[str, float]]:
    """Fit calibrations, and a threshold for each operating point; triage needs a model with a lesion probability."""
    calibrations = _fit_calibrations(local)
    calibrated = local.calibrated(calibrations)
    thresholds = {"differential": _threshold(calibrated, calibrated.probability)}
    if "lesion_probability" in calibrated.probabilities:
        rows = np.arange(len(local.labels))
        if local.healthy.any():
            rows = np.flatnonzero((local.labels == 1) | local.healthy)
        part = calibrated.take(rows)
        thresholds["triage"] = _threshold(part, part.probabilities["lesion_probability"])
    return calibrations, thresholds


def _fit_calibrations(local: LocalPredictions) -> dict[ProbabilityName, Calibration]:
    """Fit slope and offset of every probability at once, by the log loss of the label under their product."""
    odds = np.stack([log_odds(values) for values in local.probabilities.values()])

    def loss(parameters: Floats) -> float:
        slopes, offsets = np.exp(parameters[: len(odds)]), parameters[len(odds) :]
        log_p = -np.logaddexp(0, -(slopes[:, None] * odds + offsets[:, None])).sum(0)
        log_not = np.log(-np.expm1(np.minimum(log_p, -1e-9)))
        fit = np.where(local.labels == 1, log_p, log_not).sum()
        return float(_PENALTY * (parameters**2).sum() - fit)

    fitted = minimize(loss, np.zeros(2 * len(odds)), method="L-BFGS-B").x
    rule = f"slope and offset by the log loss on {len(local.labels)} slices of {local.source}"
    return {
        name: Calibration(slope=float(np.exp(fitted[i])), offset=float(fitted[len(odds) + i]), rule=rule)
        for i, name in enumerate(local.probabilities)
    }


def _threshold(local: LocalPredictions, probability: NDArray[np.float64]) -> float:
    return choose_threshold({local.source: SourcePredictions(log_odds(probability), local.labels, local.groups)})


def _cross_validate(local: LocalPredictions, seed: int) -> dict[str, Interval]:
    """Score every slice with a calibration and thresholds fitted without its patient."""
    probability = np.zeros(len(local.labels))
    called: dict[str, NDArray[np.bool_]] = {}
    folds = min(_FOLDS, *(len(np.unique(local.groups[local.labels == label])) for label in (0, 1)))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    for seen, rest in splitter.split(local.labels, local.labels, local.groups):
        if len(np.unique(local.labels[seen])) < 2:
            raise TrainingError(f"{local.source}: too few patients for a cross-validation of the calibration")
        calibrations, thresholds = _fit(local.take(seen))
        unseen = local.take(rest).calibrated(calibrations)
        probability[rest] = unseen.probability
        for point, threshold in thresholds.items():
            judged = unseen.probabilities["lesion_probability"] if point == "triage" else unseen.probability
            called.setdefault(point, np.zeros(len(local.labels), np.bool_))[rest] = judged >= threshold
    return _figures(probability, called, local, seed)


def _figures(
    probability: Floats, called: Mapping[str, NDArray[np.bool_]], local: LocalPredictions, seed: int
) -> dict[str, Interval]:
    """Score by figures that do not depend on a threshold, and by the rates of each operating point."""
    weights = bootstrap_weights(local.labels, seed, local.groups.tolist())
    scores = weighted_scores(probability, local.labels, 0.5, weights)
    figures = {str(name): interval(scores[name]) for name in ("auc", "log_loss", "brier", "calibration_error")}
    for point, positive in called.items():
        figures |= _rates(point, positive, local, weights)
    return figures


def _rates(point: str, called: NDArray[np.bool_], local: LocalPredictions, weights: Floats) -> dict[str, Interval]:
    """Sensitivity and specificity of an operating point; triage is judged on healthy slices where some are known."""
    negative = local.labels == 0
    if point == "triage" and local.healthy.any():
        negative = local.healthy
    rates = {}
    for name, members, right in (("sensitivity", local.labels == 1, called), ("specificity", negative, ~called)):
        counted = weights[members].sum(0)
        rates[f"{point} {name}"] = interval((right[members] @ weights[members]) / np.maximum(counted, 1))
    return rates
