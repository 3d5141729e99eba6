"""Calibration of probabilities: chosen across sources, and shown as a reliability diagram."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from service.model.card import AnswerName, Calibration
from training.data.ct_slices import CtSlice
from training.evaluation.by_source import SourcePredictions, is_covid, log_odds, predictions_by_source, shows_lesion
from training.evaluation.predictions import Predictions
from training.evaluation.scores import BINS, bin_of, weighted_scores
from training.run.record import Record

FEWEST_OF_CLASS: Final = 10
"""Fewest slices of each class of a source that calibrates, and that shows whether a network learned."""

_SURE_OF_LESION: Final = 0.5
"""Smallest lesion probability of a slice that is used to calibrate `covid_given_lesion`."""

LOSS_TOLERANCE: Final = 0.02
"""Log loss by which a calibration must be better than none: networks of one recipe differ by more."""


class CalibrationTrial(Record):
    """One kind of calibration, fitted to all left-out sources and scored on sources left out of its fit.

    Attributes:
        slope, offset: fitted to all sources.
        log_loss: mean over sources of the log loss on the source that was left out of the fit; both classes weigh the
            same.
        worst_calibration_error: largest calibration error of these sources.
    """

    slope: float
    offset: float
    log_loss: float
    worst_calibration_error: float


class ReliabilityBin(NamedTuple):
    """The slices of a bin of probabilities."""

    mean_probability: float
    share_of_covid: float
    slices: int


def apply(calibration: Calibration, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Calibrate probabilities: float32 of the same shape."""
    odds = calibration.slope * log_odds(probabilities) + calibration.offset
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


def choose_calibration(
    sources: Mapping[str, SourcePredictions],
) -> tuple[Calibration, dict[str, CalibrationTrial]]:
    """Choose no calibration, a slope (temperature), or slope and offset (Platt), by the log loss on other sources.

    Each kind is fitted to all sources but one and scored on that one, because a model is used in hospitals outside of
    every fit. None is kept unless another is better by more than LOSS_TOLERANCE. With a single source nothing can be
    scored, and the probabilities stay as they are.

    Returns:
        The calibration, fitted to all sources, and the trial of each kind; no trials with a single source.
    """
    if len(sources) < 2:
        only = f"{next(iter(sources))} is the only left-out source" if sources else "no left-out source tells"
        return Calibration(slope=1, offset=0, rule=f"none: {only}"), {}
    trials = {kind: _try(kind, sources) for kind in ("none", "temperature", "platt")}
    # a slope of 0 or less would reverse the order of the slices
    best = min((kind for kind in trials if trials[kind].slope > 0), key=lambda kind: trials[kind].log_loss)
    if trials["none"].log_loss - trials[best].log_loss <= LOSS_TOLERANCE:
        best = "none"
    losses = ", ".join(f"{kind} {trial.log_loss:.3f}" for kind, trial in trials.items())
    rule = (
        f"{best}: by the mean log loss on left-out {', '.join(sources)}, each judged by a fit to the others "
        f"({losses}), none unless another is more than {LOSS_TOLERANCE} better; sources and classes weigh the same"
    )
    return Calibration(slope=trials[best].slope, offset=trials[best].offset, rule=rule), trials


def fit_platt(sources: Mapping[str, SourcePredictions]) -> tuple[Calibration, dict[str, CalibrationTrial]]:
    """Fit slope and offset to all sources, for log odds without a natural zero, such as those of a maximum.

    Returns:
        The calibration, and its trial, each source scored by a fit to the others; no trial with a single source.
    """
    if not sources:
        return Calibration(slope=1, offset=0, rule="none: no left-out source tells"), {}
    slope, offset = _fit("platt", list(sources.values()))
    if slope <= 0:  # it would reverse the order of the slices
        return Calibration(slope=1, offset=0, rule=f"none: the order on {', '.join(sources)} is wrong"), {}
    rule = f"platt: fitted to left-out {', '.join(sources)}; sources and classes weigh the same"
    trials = {"platt": _try("platt", sources)} if len(sources) > 1 else {}
    return Calibration(slope=slope, offset=offset, rule=rule), trials


def fit_calibrations(
    predictions: Predictions, slices: Sequence[CtSlice]
) -> tuple[dict[AnswerName, Calibration], dict[AnswerName, dict[str, CalibrationTrial]]]:
    """Calibrate both probabilities of an uncalibrated network, on the slices with a known truth.

    The log odds of a maximum over thousands of cells are overconfident, so slope and offset are always fitted to them.
    `covid_given_lesion` is calibrated on slices with a predicted lesion, without healthy people.
    """
    lesion_sources = predictions_by_source(shows_lesion, slices, predictions.lesion_probability, FEWEST_OF_CLASS)
    of_lesion, lesion_trials = fit_platt(lesion_sources)
    has_lesion = apply(of_lesion, predictions.lesion_probability) >= _SURE_OF_LESION
    sick = [
        replace(slice_, label=slice_.label if sure and slice_.finding != "healthy" else None)
        for slice_, sure in zip(slices, has_lesion, strict=True)
    ]
    covid_sources = predictions_by_source(is_covid, sick, predictions.covid_given_lesion, FEWEST_OF_CLASS)
    of_covid, covid_trials = choose_calibration(covid_sources)
    return (
        {"lesion_probability": of_lesion, "covid_given_lesion": of_covid},
        {"lesion_probability": lesion_trials, "covid_given_lesion": covid_trials},
    )


def calibrated(predictions: Predictions, calibrations: Mapping[AnswerName, Calibration]) -> Predictions:
    """Apply calibrations to the predictions of an uncalibrated network."""
    return replace(
        predictions,
        lesion_probability=apply(calibrations["lesion_probability"], predictions.lesion_probability),
        covid_given_lesion=apply(calibrations["covid_given_lesion"], predictions.covid_given_lesion),
    )


def reliability(probabilities: ArrayLike, labels: ArrayLike) -> list[ReliabilityBin]:
    """Return the points of a reliability diagram (DeGroot & Fienberg 1983): those of ten equal bins with slices."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    bins = [bin_of(p) == place for place in range(BINS)]
    return [
        ReliabilityBin(float(p[rows].mean()), float(y[rows].mean()), int(rows.sum())) for rows in bins if rows.any()
    ]


def _try(kind: str, sources: Mapping[str, SourcePredictions]) -> CalibrationTrial:
    losses, errors = [], []
    for name, source in sources.items():
        slope, offset = _fit(kind, [other for other_name, other in sources.items() if other_name != name])
        weights = np.stack([_equal_classes(source.labels), np.ones(len(source.labels))], axis=1)
        figures = weighted_scores(source.calibrated(slope, offset).probability, source.labels, 0.5, weights)
        losses.append(figures["log_loss"][0])
        errors.append(figures["calibration_error"][1])
    slope, offset = _fit(kind, list(sources.values()))
    return CalibrationTrial(
        slope=slope,
        offset=offset,
        log_loss=round(float(np.mean(losses)), 4),
        worst_calibration_error=round(float(max(errors)), 4),
    )


def _fit(kind: str, sources: Sequence[SourcePredictions]) -> tuple[float, float]:
    """Fit slope and offset so that every source and both its classes weigh the same."""
    if kind == "none":
        return 1.0, 0.0
    odds = np.concatenate([source.log_odds for source in sources])
    labels = np.concatenate([source.labels for source in sources])
    weights = np.concatenate([_equal_classes(source.labels) for source in sources])
    # a weak penalty, so that the slope is finite where the classes are separated
    fitted = LogisticRegression(C=100, fit_intercept=kind == "platt")
    fitted.fit(odds[:, None], labels, sample_weight=weights)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def _equal_classes(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    positives = labels.mean()
    return np.asarray(np.where(labels == 1, 0.5 / positives, 0.5 / (1 - positives)) / len(labels), np.float64)
