"""Scores of a binary classifier's probabilities, with bootstrap intervals over patients or slices.

COVID is the positive class everywhere: sensitivity is recall of COVID, specificity is recall of NonCOVID, precision is
the positive predictive value, npv the negative one.

A resample is a column of weights, how often it draws each slice, so that one product scores all resamples.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from service.model.card import Interval
from training.run.record import Record
from training.run.seeding import derive_seed

ScoreName: TypeAlias = Literal[
    "accuracy", "sensitivity", "specificity", "precision", "npv", "f1", "auc", "auprc", "log_loss", "brier",
    "calibration_error",
]  # fmt: skip

Floats: TypeAlias = NDArray[np.float64]

BINS: Final = 10
"""Equal bins of the calibration error and of the reliability diagram."""

RESAMPLES: Final = 2000
"""Bootstrap resamples; each 2.5 % tail then has 50 of them."""

_DECIMALS: Final = 4
"""Of figures and points of curves; one of 203 slices is 0.005."""


class ConfusionMatrix(Record):
    """Numbers of slices."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


class RocCurve(Record):
    """Points of the receiver operating characteristic, by falling threshold."""

    false_positive_rate: list[float]
    true_positive_rate: list[float]
    threshold: list[float]


class PatientScores(Record):
    """Scores of the mean probability of each patient, with intervals over patients."""

    count: int
    positives: int
    figures: dict[ScoreName, Interval]


class Scores(Record):
    """Scores of one set of probabilities.

    Attributes:
        figures: each with its 95 % interval: percentiles of a bootstrap (Efron 1979, doi 10.1214/aos/1176344552) that
            resamples the patients of each class with all their slices, where patients are known, else the slices.
            Intervals over slices are too narrow, because slices of one patient are alike.
        patients: one score a patient; None where patients are not known.
    """

    count: int
    positives: int
    threshold: float
    figures: dict[ScoreName, Interval]
    confusion_matrix: ConfusionMatrix
    roc: RocCurve
    patients: PatientScores | None = None


def score(
    probabilities: ArrayLike | torch.Tensor,
    labels: ArrayLike | torch.Tensor,
    threshold: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Scores:
    """Score probabilities of COVID; both classes must occur.

    Args:
        labels: (N,), 1 is COVID.
        groups: patient of each slice; None takes each slice as a patient.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    tn, fp, fn, tp = (int(((p >= threshold) == call)[y == label].sum()) for label in (0, 1) for call in (False, True))
    false_positive, true_positive, thresholds = roc_curve(y, p, drop_intermediate=False)
    return Scores(
        count=len(y),
        positives=int(y.sum()),
        threshold=threshold,
        figures=figures_with_intervals(p, y, threshold, bootstrap_weights(y, seed, groups)),
        confusion_matrix=ConfusionMatrix(true_positives=tp, false_positives=fp, true_negatives=tn, false_negatives=fn),
        roc=RocCurve(
            false_positive_rate=_rounded(false_positive),
            true_positive_rate=_rounded(true_positive),
            threshold=_rounded(np.minimum(thresholds, 1.0)),
        ),
        patients=_by_patient(p, y, threshold, seed, groups) if groups is not None else None,
    )


def bin_of(probabilities: Floats) -> NDArray[np.int64]:
    """Return the number of the bin of each probability, 0 to BINS - 1."""
    return np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)


def bootstrap_weights(
    labels: NDArray[np.int64], seed: int, groups: Sequence[str] | None = None, count: int = RESAMPLES
) -> Floats:
    """Draw groups with replacement within each class; return how often each resample has each slice.

    Returns:
        (N, 1 + count); column 0 has each slice once.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "bootstrap"))
    names = np.arange(len(labels)) if groups is None else np.asarray(groups)
    weights = np.ones((len(labels), 1 + count))
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        members, group = np.unique(names[rows], return_inverse=True)
        drawn = torch.randint(len(members), (len(members), count), generator=generator).numpy()
        times = np.stack([np.bincount(column, minlength=len(members)) for column in drawn.T], axis=1)
        weights[rows, 1:] = times[group]
    return weights


def figures_with_intervals(
    probabilities: Floats, labels: NDArray[np.int64], threshold: float, weights: Floats
) -> dict[ScoreName, Interval]:
    """Score the original set, column 0 of the weights, with percentiles of its resamples, the other columns."""
    by_column = weighted_scores(probabilities, labels, threshold, weights)
    return {name: interval(values) for name, values in by_column.items()}


def interval(values: Floats) -> Interval:
    """Take the first value, and the 95 % interval of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Interval(value=round(float(values[0]), _DECIMALS), low=round(low, _DECIMALS), high=round(high, _DECIMALS))


def weighted_scores(
    probabilities: Floats, labels: NDArray[np.int64], threshold: float, weights: Floats
) -> dict[ScoreName, Floats]:
    """Compute every score for each column of weights: (R,) each; a share of nothing is 0."""
    p, covid, called = probabilities, labels == 1, probabilities >= threshold
    tp, fp, fn, tn = (
        cells.astype(np.float64) @ weights
        for cells in (called & covid, called & ~covid, ~called & covid, ~called & ~covid)
    )
    total = tp + fp + fn + tn
    likely = np.clip(np.where(covid, p, 1 - p), 1e-7, 1)
    bins = bin_of(p) == np.arange(BINS)[:, np.newaxis]
    return {
        "accuracy": (tp + tn) / total,
        "sensitivity": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "precision": _share(tp, tp + fp),
        "npv": _share(tn, tn + fn),
        "f1": _share(2 * tp, 2 * tp + fp + fn),
        "auc": weighted_auc(p, labels, weights),
        "auprc": _average_precision(p, labels, weights),
        "log_loss": -np.log(likely) @ weights / total,
        "brier": (p - labels) ** 2 @ weights / total,
        # mean distance of probability and share of COVID over equal bins (Naeini et al. 2015)
        "calibration_error": np.abs((bins * (p - labels)) @ weights).sum(0) / total,
    }


def weighted_auc(scores: Floats, labels: NDArray[np.int64], weights: Floats) -> Floats:
    """Compute the area under the ROC curve for each column of weights: (R,).

    The share of pairs of a COVID and a NonCOVID slice in the right order, ties counted half (Mann & Whitney 1947).
    """
    positives, negatives = _by_score(scores, labels, weights)
    below = np.cumsum(negatives, axis=0) - negatives / 2
    pairs = positives.sum(0) * negatives.sum(0)
    return _share((positives * below).sum(0), pairs)


def difference_of_auc(
    first: Floats,
    second: Floats,
    labels: NDArray[np.int64],
    patients: Sequence[str] | None = None,
) -> Interval:
    """Compute the AUC of `first` minus that of `second`, with a 95 % interval.

    The bootstrap resamples patients, or slices, within classes and scores both on the same resamples (Efron &
    Tibshirani 1993, chapter 16).

    Args:
        first, second: (seeds, N) scores; the mean AUC over seeds is compared.
        labels: (N,), 0 or 1.
        patients: (N,); None takes each slice as a patient.
    """
    weights = bootstrap_weights(labels, 0, patients)
    means = [np.mean([weighted_auc(row, labels, weights) for row in scores], axis=0) for scores in (first, second)]
    return interval(means[0] - means[1])


def _average_precision(scores: Floats, labels: NDArray[np.int64], weights: Floats) -> Floats:
    """Compute the area under the precision-recall curve as scikit-learn's average precision: (R,)."""
    positives, negatives = (sums[::-1] for sums in _by_score(scores, labels, weights))
    above, called = np.cumsum(positives, axis=0), np.cumsum(positives + negatives, axis=0)
    return _share((positives * _share(above, called)).sum(0), positives.sum(0))


def _by_score(scores: Floats, labels: NDArray[np.int64], weights: Floats) -> tuple[Floats, Floats]:
    """Sum the weights of COVID and of NonCOVID slices at each score, lowest first: (scores, R) each."""
    order = np.argsort(scores, kind="stable")
    starts = np.unique(scores[order], return_index=True)[1]
    covid = labels[order, np.newaxis]
    return (
        np.add.reduceat(weights[order] * covid, starts, axis=0),
        np.add.reduceat(weights[order] * (1 - covid), starts, axis=0),
    )


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _by_patient(p: Floats, y: NDArray[np.int64], threshold: float, seed: int, groups: Sequence[str]) -> PatientScores:
    """Score the mean probability of each patient; one with slices of both labels counts once in each class."""
    keys, patient = np.unique([f"{label} {group}" for label, group in zip(y, groups, strict=True)], return_inverse=True)
    counts = np.bincount(patient)
    means = np.bincount(patient, weights=p) / counts
    labels = (np.bincount(patient, weights=y) / counts).astype(np.int64)
    return PatientScores(
        count=len(keys),
        positives=int(labels.sum()),
        figures=figures_with_intervals(means, labels, threshold, bootstrap_weights(labels, seed)),
    )


def _rounded(values: Floats) -> list[float]:
    return [round(value, _DECIMALS) for value in values.tolist()]


def written(figure: Interval) -> str:
    """Write a figure with its interval, as in `0.887 (0.874 to 0.900)`."""
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def shares_up_to(values: ArrayLike, bounds: Sequence[float]) -> dict[float, float]:
    """Compute the share of `values` at or below each bound."""
    values = np.asarray(values)
    return {bound: round(float((values <= bound).mean()), _DECIMALS) for bound in bounds}
