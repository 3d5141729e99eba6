"""Scores of a binary classifier's probabilities, with intervals. torchmetrics computes them.

COVID is the positive class everywhere: sensitivity is recall of COVID, specificity is recall of NonCOVID, precision is
the positive predictive value.
"""

from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torchmetrics.functional.classification import (
    binary_confusion_matrix,
    binary_roc,
    multilabel_accuracy,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
    multilabel_specificity,
)

from service.model.card import Interval
from training.run.record import Record
from training.run.seeding import derive_seed

ScoreName: TypeAlias = Literal["accuracy", "sensitivity", "specificity", "precision", "f1", "auc"]

RESAMPLES: Final = 2000
"""Bootstrap resamples; each 2.5 % tail then has 50 of them."""

_ROC_POINTS_DECIMALS: Final = 4


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


class Scores(Record):
    """Scores of one set of probabilities.

    Attributes:
        figures: each with its 95 % interval: percentiles of a bootstrap that resamples slices within each class
            (Efron 1979, doi 10.1214/aos/1176344552). It treats slices as independent. Slices of one patient are
            not, so the intervals are somewhat too narrow.
    """

    count: int
    positives: int
    threshold: float
    figures: dict[ScoreName, Interval]
    confusion_matrix: ConfusionMatrix
    roc: RocCurve

    def __str__(self) -> str:
        parts = [f"{key} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for key, each in self.figures.items()]
        return f"(n = {self.count}, threshold {self.threshold:.3f}): {', '.join(parts)}"


def score(probabilities: torch.Tensor, labels: torch.Tensor, threshold: float, seed: int) -> Scores:
    """Score float (N,) probabilities of COVID against int64 (N,) labels; both classes must occur."""
    tn, fp, fn, tp = binary_confusion_matrix(_calls(probabilities, threshold), labels).flatten().tolist()
    fpr, tpr, thresholds = binary_roc(probabilities, labels)
    return Scores(
        count=len(labels),
        positives=int(labels.sum()),
        threshold=threshold,
        figures=_with_intervals(probabilities, labels, threshold, seed),
        confusion_matrix=ConfusionMatrix(true_positives=tp, false_positives=fp, true_negatives=tn, false_negatives=fn),
        roc=RocCurve(
            false_positive_rate=_rounded(fpr), true_positive_rate=_rounded(tpr), threshold=_rounded(thresholds)
        ),
    )


def _with_intervals(
    probabilities: torch.Tensor, labels: torch.Tensor, threshold: float, seed: int
) -> dict[ScoreName, Interval]:
    # column 0 is the original set, the others are its resamples
    rows = torch.cat([torch.arange(len(labels))[:, None], _resampled_rows(labels, seed)], dim=1)
    by_column = _scores_by_column(probabilities[rows], labels[rows], threshold)
    return {name: _interval(values) for name, values in by_column.items()}


def _interval(values: torch.Tensor) -> Interval:
    low, high = np.percentile(values[1:].numpy(), [2.5, 97.5])
    return Interval(value=values[0].item(), low=float(low), high=float(high))


def _resampled_rows(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Draw indices with replacement within each class: int64 (N, RESAMPLES)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "bootstrap"))
    rows = []
    for label in (0, 1):
        members = (labels == label).nonzero().flatten()
        rows.append(members[torch.randint(len(members), (len(members), RESAMPLES), generator=generator)])
    return torch.cat(rows)


def _scores_by_column(
    probabilities: torch.Tensor, labels: torch.Tensor, threshold: float
) -> dict[ScoreName, torch.Tensor]:
    """Score each column of (N, R) probabilities and labels: float (R,) each.

    torchmetrics' multilabel functions score each column separately, so one call is enough for all resamples.
    """
    calls = _calls(probabilities, threshold)

    def by_column(metric: Callable[..., torch.Tensor]) -> torch.Tensor:
        return metric(calls, labels, num_labels=labels.shape[1], average=None)

    return {
        "accuracy": by_column(multilabel_accuracy),
        "sensitivity": by_column(multilabel_recall),
        "specificity": by_column(multilabel_specificity),
        "precision": by_column(multilabel_precision),
        "f1": by_column(multilabel_f1_score),
        "auc": torch.from_numpy(auc_by_column(probabilities.numpy(), labels.numpy())),
    }


def auc(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Compute the area under the ROC curve of float (N,) probabilities and int64 (N,) labels."""
    return float(auc_by_column(probabilities[:, None].numpy(), labels[:, None].numpy())[0])


def auc_by_column(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the area under the ROC curve of each column of (N, R) scores and labels: (R,).

    The share of pairs of a COVID and a NonCOVID slice in the right order, ties counted half (Mann & Whitney 1947). By
    ranks, because torchmetrics would take thousands of resamples one by one.
    """
    ranks = rankdata(scores, axis=0)
    positives = labels.sum(0)
    pairs = positives * (len(labels) - positives)
    area: NDArray[np.float64] = ((ranks * labels).sum(0) - positives * (positives + 1) / 2) / pairs
    return area


def _calls(probabilities: torch.Tensor, threshold: float) -> torch.Tensor:
    """Call slices with p >= t COVID, like the service: int64 (N,), 1 is COVID. torchmetrics itself tests p > t."""
    return (probabilities >= threshold).long()


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, _ROC_POINTS_DECIMALS) for value in values.tolist()]


class MeanAndDeviation(Record):
    """Mean and standard deviation over runs, such as seeds; the deviation of a single run is None."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.deviation is None else f" ± {self.deviation:.3f}")


def mean_and_deviation(values: Sequence[float]) -> MeanAndDeviation:
    """Summarise at least one value."""
    deviation = round(stdev(values), 4) if len(values) > 1 else None
    return MeanAndDeviation(mean=round(mean(values), 4), deviation=deviation)
