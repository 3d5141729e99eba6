"""Where a probability becomes a call: the rules that choose a threshold on validation, and what each gives."""

from typing import Final, get_args

import torch

from service.artifact import Interval
from training.config import ThresholdRule
from training.records import Record
from training.scores import FigureName, figures_of

_RULES: Final[dict[ThresholdRule, str]] = {
    "half": "fixed at 0.5",
    "youden": "highest sensitivity + specificity on the validation split (Youden 1950)",
    "sensitivity-90": "highest with sensitivity >= 0.90 on the validation split, for screening",
}


class Threshold(Record):
    """The probability at or above which a slice is called COVID, and the rule that chose it."""

    value: float
    rule: str


class OperatingPoint(Record):
    """A threshold and the figures that it gives on both splits."""

    threshold: Threshold
    val: dict[FigureName, Interval]
    test: dict[FigureName, Interval]


def choose_threshold(probabilities: torch.Tensor, labels: torch.Tensor, rule: ThresholdRule) -> Threshold:
    """Apply a rule to validation probabilities.

    The value lies midway between two neighbouring probabilities, so that rounding in another precision does not move
    a slice across it.
    """
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


def operating_points(
    val: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor], seed: int
) -> dict[ThresholdRule, OperatingPoint]:
    """What each rule would give; `val` and `test` are float (N,) probabilities and int64 (N,) labels."""
    points = {}
    for rule in get_args(ThresholdRule):
        threshold = choose_threshold(*val, rule)
        points[rule] = OperatingPoint(
            threshold=threshold,
            val=figures_of(*val, threshold.value, seed).figures,
            test=figures_of(*test, threshold.value, seed).figures,
        )
    return points
