"""Rules that choose the threshold, without test, and the scores that each one gives."""

from collections.abc import Mapping
from typing import Final, get_args

import torch

from service.model.card import Interval
from training.evaluation.scores import ScoreName, score
from training.recipe import ThresholdRule
from training.run.record import Record

_RULES: Final[dict[ThresholdRule, str]] = {
    "half": "fixed at 0.5",
    "youden": "highest sensitivity + specificity on {} (Youden 1950)",
    "sensitivity-90": "highest with sensitivity >= 0.90 on {}, for screening",
}
_REFERENCES: Final = {
    "val": "the validation split",
    "out-of-fold": "out-of-fold answers to train and validation",
}


class Threshold(Record):
    """Probability at or above which a slice is called COVID, and the rule that chose it."""

    value: float
    rule: str


class OperatingPoint(Record):
    """A threshold and the scores that it gives.

    Attributes:
        chosen_on: scores on the slices that it was chosen on: validation, or out-of-fold answers.
    """

    threshold: Threshold
    chosen_on: dict[ScoreName, Interval]
    test: dict[ScoreName, Interval]


def choose_threshold(
    probabilities: torch.Tensor, labels: torch.Tensor, rule: ThresholdRule, reference: str = "val"
) -> Threshold:
    """Apply a rule to probabilities of the reference: `val`, or `out-of-fold` answers.

    The threshold is the middle of two neighbouring probabilities, so that rounding in another precision does not move a
    slice across it.
    """
    words = _RULES[rule].format(_REFERENCES[reference])
    if rule == "half":
        return Threshold(value=0.5, rule=words)
    levels = torch.cat([torch.zeros(1), torch.unique(probabilities), torch.ones(1)])
    candidates = (levels[:-1] + levels[1:]) / 2
    called = probabilities[None, :] >= candidates[:, None]
    sensitivity = (called & (labels == 1)).sum(1) / (labels == 1).sum()
    specificity = (~called & (labels == 0)).sum(1) / (labels == 0).sum()
    if rule == "youden":
        value = candidates[(sensitivity + specificity).argmax()]
    else:
        value = candidates[sensitivity >= 0.90].max()
    return Threshold(value=value.item(), rule=words)


def operating_points(
    reference: str, answers: Mapping[str, tuple[torch.Tensor, torch.Tensor]], seed: int
) -> dict[ThresholdRule, OperatingPoint]:
    """Return the threshold of each rule, with its scores on the reference and on test.

    Args:
        answers: float (N,) probabilities and int64 (N,) labels, of the reference under its name and of `test`.
    """
    points = {}
    for rule in get_args(ThresholdRule):
        threshold = choose_threshold(*answers[reference], rule, reference)
        points[rule] = OperatingPoint(
            threshold=threshold,
            chosen_on=score(*answers[reference], threshold.value, seed).figures,
            test=score(*answers["test"], threshold.value, seed).figures,
        )
    return points
