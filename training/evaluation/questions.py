"""Questions that answers to slices are judged by: which slices have a known truth, and what it is."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice, has_lesion
from training.data.labelled import Finding
from training.evaluation.calibration import SourceAnswers, log_odds

Question: TypeAlias = Callable[[CtSlice], int | None]
"""Truth of a slice: 1 is yes, 0 is no, None is not known, or not asked."""


def is_covid(each: CtSlice) -> int | None:
    """COVID-19 against everything else, in sources with labels."""
    return each.label if each.kind == "labelled" else None


def is_covid_against(finding: Finding | None, each: CtSlice) -> int | None:
    """COVID-19 against slices with one finding; None are those of which it is not known."""
    return is_covid(each) if each.label == 1 or each.finding == finding else None


def shows_lesion(each: CtSlice) -> int | None:
    """Lesion against none: by drawn masks, clear lungs, healthy people, and the label of COVID-19."""
    if each.lesion is not None:
        return int(has_lesion(each.lesion))
    if each.kind == "clear" or each.finding == "healthy":
        return 0
    return 1 if is_covid(each) else None


BY_NEGATIVES: Final[dict[str, Question]] = {
    "healthy": partial(is_covid_against, "healthy"),
    "other disease": partial(is_covid_against, "other disease"),
    "unknown": partial(is_covid_against, None),
}
"""COVID-19 against each class of negatives."""


def ask(
    question: Question, slices: Sequence[CtSlice], probability: NDArray[np.floating], fewest: int = 1
) -> dict[str, SourceAnswers]:
    """Collect answers to a question by source.

    Args:
        question: what is asked.
        slices: N of them.
        probability: (N,), that the answer is yes.
        fewest: slices of each truth that a source must have.
    """
    members: dict[str, list[int]] = defaultdict(list)
    truths = [question(each) for each in slices]
    for index, (each, truth) in enumerate(zip(slices, truths, strict=True)):
        if truth is not None:
            members[each.source].append(index)
    odds = log_odds(probability)
    found = {
        name: SourceAnswers(
            odds[own],
            np.array([truths[i] for i in own], np.int64),
            np.array([slices[i].group for i in own], np.str_),
        )
        for name, own in sorted(members.items())
    }
    return {name: own for name, own in found.items() if min(np.bincount(own.labels, minlength=2)) >= fewest}
