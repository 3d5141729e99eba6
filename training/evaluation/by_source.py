"""Predictions for slices with a known truth, grouped by source."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice, has_lesion
from training.data.labelled import Finding
from training.evaluation.scores import RESAMPLES, Floats, bootstrap_weights

Truth: TypeAlias = Callable[[CtSlice], int | None]
"""Truth of a slice: 1 is yes, 0 is no, None is not known or not relevant."""


@dataclass(frozen=True, slots=True)
class SourcePredictions:
    """Predictions for N slices of one source.

    Attributes:
        log_odds: float64 (N,), of the network.
        labels: int64 (N,), 1 is yes.
        groups: (N,), patient, paper or volume of each slice.
    """

    log_odds: NDArray[np.float64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]

    @property
    def probability(self) -> NDArray[np.float64]:
        """float64 (N,)."""
        return 1 / (1 + np.exp(-self.log_odds))

    def calibrated(self, slope: float, offset: float) -> "SourcePredictions":
        """Return the same predictions with calibrated log odds."""
        return replace(self, log_odds=slope * self.log_odds + offset)

    def resamples(self, seed: int, count: int = RESAMPLES) -> Floats:
        """Draw bootstrap weights over the groups, as `bootstrap_weights`: (N, 1 + count)."""
        return bootstrap_weights(self.labels, seed, self.groups.tolist(), count)


def log_odds(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute the log odds of probabilities: float64 of the same shape, finite also for 0 and 1."""
    p = probabilities.astype(np.float64).clip(1e-30, 1 - 1e-7)
    return np.asarray(np.log(p) - np.log1p(-p), np.float64)


def is_covid(slice_: CtSlice) -> int | None:
    """COVID-19 against everything else, in sources with labels."""
    return slice_.label if slice_.kind == "labelled" else None


def _is_covid_against(finding: Finding | None, slice_: CtSlice) -> int | None:
    """COVID-19 against slices with one finding; None stands for slices with an unknown finding."""
    return is_covid(slice_) if slice_.label == 1 or slice_.finding == finding else None


def shows_lesion(slice_: CtSlice) -> int | None:
    """Lesion against none: by drawn masks, clear lungs, healthy people, and the label of COVID-19."""
    if slice_.lesion is not None:
        return int(has_lesion(slice_.lesion))
    if slice_.kind == "clear" or slice_.finding == "healthy":
        return 0
    return 1 if is_covid(slice_) else None


_NEGATIVES: Final[dict[str, Truth]] = {
    "healthy": partial(_is_covid_against, "healthy"),
    "other disease": partial(_is_covid_against, "other disease"),
    "unknown": partial(_is_covid_against, None),
}
"""COVID-19 against each class of negatives."""


def predictions_by_source(
    truth: Truth, slices: Sequence[CtSlice], probability: NDArray[np.floating], fewest: int = 1
) -> dict[str, SourcePredictions]:
    """Group the predictions for slices with a known truth by source.

    Args:
        probability: (N,), that the truth is 1.
        fewest: slices of each truth that a source must have; other sources are left out.
    """
    members: dict[str, list[int]] = defaultdict(list)
    truths = [truth(slice_) for slice_ in slices]
    for index, slice_ in enumerate(slices):
        if truths[index] is not None:
            members[slice_.source].append(index)
    odds = log_odds(probability)
    sources = {
        name: SourcePredictions(
            odds[places],
            np.array([truths[i] for i in places], np.int64),
            np.array([slices[i].group for i in places], np.str_),
        )
        for name, places in sorted(members.items())
    }
    return {name: source for name, source in sources.items() if min(np.bincount(source.labels, minlength=2)) >= fewest}


def by_negatives(
    slices: Sequence[CtSlice], probability: NDArray[np.floating]
) -> Iterator[tuple[str, str, SourcePredictions]]:
    """Yield source, class of negatives and predictions: COVID-19 against healthy, other disease and unknown."""
    for negatives, truth in _NEGATIVES.items():
        for source, predictions in predictions_by_source(truth, slices, probability).items():
            yield source, negatives, predictions
