"""Does the network read disease, or what else tells this data's classes apart? The shortcut audit of an evaluation.

COVID-CT's classes came from different sources in different file formats (the header rule below), so a figure alone says
little: it is put beside what the same network answers when the formats' traces are taken away.
"""

from collections.abc import Callable

import numpy as np
import torch

from service.model.card import Interval
from training.data.covid_ct import CovidCt, Split
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.scores import FigureName, Figures, figures_of
from training.run.record import Record


class HeaderRule(Record):
    """What test gives away without a pixel: a slice is COVID where its file's format mostly was in training.

    Attributes:
        formats: share of COVID among the training slices of each format and colour mode.
    """

    formats: dict[str, float]
    accuracy: float
    auc: float


class Variant(Record):
    """The model's figures on test with every slice altered alike, and how far they moved."""

    figures: dict[FigureName, Interval]
    auc_change: float
    accuracy_change: float


class Subset(Record):
    """The test slices of one file format: the format can't tell their classes apart.

    Attributes:
        auc: None where only one class occurs.
    """

    count: int
    positives: int
    auc: Interval | None


class Audit(Record):
    """The shortcut audit; thresholds are those of the unaltered evaluation."""

    header_rule: HeaderRule
    variants: dict[str, Variant]
    formats: dict[str, Subset]


def audit_of(
    data: CovidCt, plain: Figures, predict: Callable[[Split], torch.Tensor], probabilities: torch.Tensor, seed: int
) -> Audit:
    """Audit a network.

    Args:
        data: the splits; train is asked for its formats alone.
        plain: figures of test as it is.
        predict: answers probabilities (N,) to a split.
        probabilities: its answers to test as it is.
        seed: of the intervals.
    """
    variants = {}
    for name, alter in ALTERATIONS.items():
        figures = figures_of(predict(altered(data.test, alter)), data.test.labels, plain.threshold, seed).figures
        variants[name] = Variant(
            figures=figures,
            auc_change=figures["auc"].value - plain.figures["auc"].value,
            accuracy_change=figures["accuracy"].value - plain.figures["accuracy"].value,
        )
    return Audit(
        header_rule=header_rule(data, seed),
        variants=variants,
        formats=_by_format(data.test, probabilities, plain.threshold, seed),
    )


def header_rule(data: CovidCt, seed: int) -> HeaderRule:
    """Score the test split by file format and colour mode alone."""
    formats = {scan.encoding for scan in data.train.scans}
    shares = {
        each: float(np.mean([scan.label for scan in data.train.scans if scan.encoding == each])) for each in formats
    }
    prior = data.train.labels.float().mean().item()
    scores = torch.tensor([shares.get(scan.encoding, prior) for scan in data.test.scans])
    figures = figures_of(scores, data.test.labels, 0.5, seed).figures
    return HeaderRule(
        formats=dict(sorted(shares.items())), accuracy=figures["accuracy"].value, auc=figures["auc"].value
    )


def _by_format(split: Split, probabilities: torch.Tensor, threshold: float, seed: int) -> dict[str, Subset]:
    subsets = {}
    for encoding in sorted({scan.encoding for scan in split.scans}):
        inside = torch.tensor([scan.encoding == encoding for scan in split.scans])
        labels = split.labels[inside]
        positives = int(labels.sum())
        auc = None
        if 0 < positives < len(labels):
            auc = figures_of(probabilities[inside], labels, threshold, seed).figures["auc"]
        subsets[encoding] = Subset(count=len(labels), positives=positives, auc=auc)
    return subsets
