"""Shortcut audit: how much a network's predictions may depend on traces of sources and file formats.

COVID-CT's classes come from different sources in different file formats. Each score is therefore compared with the
score of a rule that reads only the format, and with the network's score on slices without these traces.
"""

from collections.abc import Mapping

import numpy as np
import torch

from service.model.card import Interval
from training.data.covid_ct import CovidCt, Split
from training.evaluation.scores import ScoreName, Scores, score
from training.run.record import Record


class HeaderRule(Record):
    """Scores on test of a rule that reads only the file format: COVID if most such training slices were.

    Attributes:
        formats: share of COVID among the training slices of each format and colour mode.
    """

    formats: dict[str, float]
    accuracy: float
    auc: float


class Variant(Record):
    """Scores on test with every slice altered in the same way, and their changes."""

    figures: dict[ScoreName, Interval]
    auc_change: float
    accuracy_change: float


class Subset(Record):
    """The test slices of one file format, within which the format says nothing about the class.

    Attributes:
        auc: None if there is only one class.
    """

    count: int
    positives: int
    auc: Interval | None


class Audit(Record):
    """The shortcut audit; thresholds are those of the unaltered evaluation."""

    header_rule: HeaderRule
    variants: dict[str, Variant]
    formats: dict[str, Subset]


def audit_shortcuts(
    data: CovidCt, plain: Scores, probabilities: torch.Tensor, altered: Mapping[str, torch.Tensor], seed: int
) -> Audit:
    """Audit a network by its predictions.

    Args:
        data: the splits; only the formats of train are used.
        plain: scores of the unaltered test split.
        probabilities: of this split, float (N,).
        altered: probabilities of the test split by alteration, float (N,) each.
        seed: of the intervals.
    """
    variants = {}
    for name, predicted in altered.items():
        figures = score(predicted, data.test.labels, plain.threshold, seed).figures
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
    formats = {labelled.encoding for labelled in data.train.slices}
    shares = {
        encoding: float(np.mean([labelled.label for labelled in data.train.slices if labelled.encoding == encoding]))
        for encoding in formats
    }
    prior = data.train.labels.float().mean().item()
    scores = torch.tensor([shares.get(labelled.encoding, prior) for labelled in data.test.slices])
    figures = score(scores, data.test.labels, 0.5, seed).figures
    return HeaderRule(
        formats=dict(sorted(shares.items())), accuracy=figures["accuracy"].value, auc=figures["auc"].value
    )


def _by_format(split: Split, probabilities: torch.Tensor, threshold: float, seed: int) -> dict[str, Subset]:
    subsets = {}
    for encoding in sorted({labelled.encoding for labelled in split.slices}):
        inside = torch.tensor([labelled.encoding == encoding for labelled in split.slices])
        labels = split.labels[inside]
        positives = int(labels.sum())
        auc = None
        if 0 < positives < len(labels):
            auc = score(probabilities[inside], labels, threshold, seed).figures["auc"]
        subsets[encoding] = Subset(count=len(labels), positives=positives, auc=auc)
    return subsets
