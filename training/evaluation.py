"""Figures of a binary classifier with intervals, the threshold and temperature that validation chooses, the audit.

torchmetrics does the maths. COVID is the positive class everywhere: sensitivity is recall of COVID, specificity is
recall of NonCOVID, precision is the positive predictive value.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import nn
from torchmetrics.functional.classification import (
    binary_calibration_error,
    binary_confusion_matrix,
    binary_roc,
    multilabel_accuracy,
    multilabel_auroc,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
    multilabel_specificity,
)

from service.artifact import Interval, Network
from service.image import Slice, decode
from training.config import Recipe
from training.data import CovidCt, Split, plain_batches
from training.network import Deployable
from training.progress import progress
from training.seeding import derive_seed

FigureName: TypeAlias = Literal["accuracy", "sensitivity", "specificity", "precision", "f1", "auc"]

RESAMPLES: Final = 2000
"""Bootstrap resamples; the 2.5 % tails then rest on 50 of them each."""

_ROC_POINTS_DECIMALS: Final = 4


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConfusionMatrix(_Record):
    """Numbers of slices."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


class RocCurve(_Record):
    """Points of the receiver operating characteristic, by falling threshold."""

    false_positive_rate: list[float]
    true_positive_rate: list[float]
    threshold: list[float]


class Figures(_Record):
    """What one set of probabilities is worth.

    Attributes:
        figures: each with its 95 % interval: percentiles of a bootstrap that resamples slices within each class
            (Efron 1979, doi 10.1214/aos/1176344552). It takes slices as independent, which slices of one patient are
            not, so the intervals are somewhat too narrow.
        expected_calibration_error: of the probability of COVID, 10 bins (Naeini et al. 2015).
        brier_score: mean squared difference of probability and label.
    """

    count: int
    positives: int
    threshold: float
    figures: dict[FigureName, Interval]
    confusion_matrix: ConfusionMatrix
    expected_calibration_error: float
    brier_score: float
    roc: RocCurve


class Threshold(_Record):
    """The probability at or above which a slice is called COVID, and the rule that chose it."""

    value: float
    rule: str


class Gate(_Record):
    """The out-of-distribution threshold, its rule, and the share of each split that it flags."""

    threshold: float
    rule: str
    flagged: dict[str, float]


@dataclass(frozen=True, slots=True)
class Predictions:
    """A network's answers to a split: probability of COVID and out-of-distribution score, float32 (N,) each."""

    probabilities: torch.Tensor
    ood_scores: torch.Tensor


@dataclass(frozen=True, slots=True)
class Results:
    """All that is known of a network once it is evaluated; `predictions` and `figures` have `val` and `test`."""

    predictions: dict[str, Predictions]
    figures: dict[str, Figures]
    test_at_half: Figures
    test_reencoded: Figures
    threshold: Threshold
    gate: Gate


OOD_QUANTILE: Final = 0.99

_RULES: Final = {
    "half": "fixed at 0.5",
    "youden": "highest sensitivity + specificity on the validation split (Youden 1950)",
    "sensitivity-90": "highest with sensitivity >= 0.90 on the validation split",
}


def evaluate(deployable: Deployable, data: CovidCt, recipe: Recipe) -> Results:
    """Choose the thresholds on validation, then look at test once: as it is, at 0.5, and re-encoded."""
    device = next(deployable.parameters()).device
    size = recipe.input_size
    val, test = (predict(deployable, split, size, device) for split in (data.val, data.test))
    predictions = {"val": val, "test": test}
    threshold = choose_threshold(val.probabilities, data.val.labels, recipe)
    alike = reencoded(data.test)

    def figures(split: Split, probabilities: torch.Tensor, at: float) -> Figures:
        return figures_of(probabilities, split.labels, at, recipe.seed)

    return Results(
        predictions=predictions,
        figures={
            "val": figures(data.val, val.probabilities, threshold.value),
            "test": figures(data.test, test.probabilities, threshold.value),
        },
        test_at_half=figures(data.test, test.probabilities, 0.5),
        test_reencoded=figures(alike, predict(deployable, alike, size, device).probabilities, threshold.value),
        threshold=threshold,
        gate=choose_gate(predictions),
    )


def predict(network: Network, split: Split, input_size: int, device: torch.device) -> Predictions:
    """Answers of a network, in Python or from a model file, to a split as the service sees its slices."""
    probabilities, scores = [], []
    batches = plain_batches(split, input_size)
    with torch.inference_mode():
        for batch in progress(batches, f"evaluating {split.name}", "batch"):
            probability, score, _ = network(batch.images.to(device))
            probabilities.append(probability.cpu())
            scores.append(score.cpu())
    return Predictions(torch.cat(probabilities), torch.cat(scores))


def choose_gate(predictions: dict[str, Predictions]) -> Gate:
    """The quantile of the validation scores above which an image is flagged as no chest CT slice."""
    threshold = predictions["val"].ood_scores.quantile(OOD_QUANTILE).item()
    return Gate(
        threshold=threshold,
        rule=f"{OOD_QUANTILE:.0%} quantile of the scores of the validation split",
        flagged={name: (split.ood_scores > threshold).float().mean().item() for name, split in predictions.items()},
    )


def figures_of(probabilities: torch.Tensor, labels: torch.Tensor, threshold: float, seed: int) -> Figures:
    """All figures of float (N,) probabilities of COVID against int64 (N,) labels; both classes must occur."""
    tn, fp, fn, tp = binary_confusion_matrix(probabilities, labels, threshold=_below(threshold)).flatten().tolist()
    fpr, tpr, thresholds = binary_roc(probabilities, labels)
    return Figures(
        count=len(labels),
        positives=int(labels.sum()),
        threshold=threshold,
        figures=_with_intervals(probabilities, labels, threshold, seed),
        confusion_matrix=ConfusionMatrix(true_positives=tp, false_positives=fp, true_negatives=tn, false_negatives=fn),
        expected_calibration_error=binary_calibration_error(probabilities, labels, n_bins=10).item(),
        brier_score=(probabilities - labels).square().mean().item(),
        roc=RocCurve(
            false_positive_rate=_rounded(fpr), true_positive_rate=_rounded(tpr), threshold=_rounded(thresholds)
        ),
    )


def choose_threshold(probabilities: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> Threshold:
    """Apply the recipe's rule to validation probabilities.

    The value lies midway between two neighbouring probabilities, so that rounding in another precision does not move
    a slice across it.
    """
    rule = recipe.threshold_rule
    if rule == "half":
        return Threshold(value=0.5, rule=_RULES[rule])
    levels = torch.cat([torch.zeros(1), torch.unique(probabilities), torch.ones(1)])
    candidates = (levels[:-1] + levels[1:]) / 2
    called = probabilities[None, :] >= candidates[:, None]
    sensitivity = (called & (labels == 1)).sum(1) / (labels == 1).sum()
    specificity = (~called & (labels == 0)).sum(1) / (labels == 0).sum()
    if rule == "youden":
        value = candidates[(sensitivity + specificity).argmax()]
    else:
        value = candidates[sensitivity >= 0.90].max()
    return Threshold(value=value.item(), rule=_RULES[rule])


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature that minimises cross-entropy of float (N, 2) logits (Guo et al. 2017, arXiv 1706.04599).

    It keeps the order of the probabilities and which side of 0.5 they lie on. Bounded to 0.05..20, for logits that
    separate the classes perfectly.
    """
    log_temperature = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(logits / log_temperature.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return log_temperature.detach().exp().clamp(0.05, 20).item()


def reencoded(split: Split) -> Split:
    """The split with every slice written alike: 256 x 256 grey JPEG of quality 75.

    What is left of a file format after decoding (compression traces, resolution) is then the same for both classes.
    """
    return Split(split.name, tuple(replace(scan, ct_slice=_reencode(scan.ct_slice)) for scan in split.scans))


def _reencode(ct_slice: Slice) -> Slice:
    file = io.BytesIO()
    Image.fromarray(ct_slice[0]).resize((256, 256), Image.Resampling.BILINEAR).save(file, "JPEG", quality=75)
    return decode(file.getvalue())


def _with_intervals(
    probabilities: torch.Tensor, labels: torch.Tensor, threshold: float, seed: int
) -> dict[FigureName, Interval]:
    # column 0 is the set as it is, the others are its resamples
    rows = torch.cat([torch.arange(len(labels))[:, None], _resampled_rows(labels, seed)], dim=1)
    by_column = _figures_by_column(probabilities[rows], labels[rows], threshold)
    return {name: _interval(values) for name, values in by_column.items()}


def _interval(values: torch.Tensor) -> Interval:
    low, high = np.percentile(values[1:].numpy(), [2.5, 97.5])
    return Interval(value=values[0].item(), low=float(low), high=float(high))


def _resampled_rows(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Indices drawn with replacement within each class: int64 (N, RESAMPLES)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "bootstrap"))
    rows = []
    for label in (0, 1):
        members = (labels == label).nonzero().flatten()
        rows.append(members[torch.randint(len(members), (len(members), RESAMPLES), generator=generator)])
    return torch.cat(rows)


def _figures_by_column(
    probabilities: torch.Tensor, labels: torch.Tensor, threshold: float
) -> dict[FigureName, torch.Tensor]:
    """Figures of each column of (N, R) probabilities and labels: float (R,) each.

    torchmetrics' multilabel functions score each column on its own, so one call serves all resamples.
    """

    def score(metric: Callable[..., torch.Tensor], **options: float) -> torch.Tensor:
        return metric(probabilities, labels, num_labels=probabilities.shape[1], average=None, **options)

    cut = _below(threshold)
    return {
        "accuracy": score(multilabel_accuracy, threshold=cut),
        "sensitivity": score(multilabel_recall, threshold=cut),
        "specificity": score(multilabel_specificity, threshold=cut),
        "precision": score(multilabel_precision, threshold=cut),
        "f1": score(multilabel_f1_score, threshold=cut),
        "auc": score(multilabel_auroc),
    }


def _below(threshold: float) -> float:
    """torchmetrics calls p > t positive; we and the service call p >= t."""
    return float(np.nextafter(np.float32(threshold), np.float32(-1)))


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, _ROC_POINTS_DECIMALS) for value in values.tolist()]
