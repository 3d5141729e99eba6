"""Thresholds with a purpose, chosen on sources that were left out of training."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from service.model.card import Interval
from training.evaluation.calibration import SourceAnswers
from training.evaluation.scores import interval
from training.run.record import Record
from training.run.seeding import derive_seed

RESAMPLES: Final = 1000
_THRESHOLD_RESAMPLES: Final = 200

THRESHOLD_TOLERANCE: Final = 0.02
"""Balanced accuracy by which another threshold must be better than the one nearest to 0.5."""

RULE: Final = f"nearest to 0.5 of those with a mean balanced accuracy within {THRESHOLD_TOLERANCE} of the best"

PointName: TypeAlias = Literal["differential", "triage"]

PURPOSES: Final[dict[PointName, str]] = {
    "differential": "COVID-19 against everything else, healthy or another disease",
    "triage": "any lesion: COVID-19 against healthy",
}


class Rates(Record):
    """Rates of one source against one class of its negatives, with 95 % bootstrap intervals over its groups."""

    positives: int
    negatives: int
    sensitivity: Interval
    specificity: Interval


class OperatingPoint(Record):
    """Two thresholds: a slice is called COVID at or above both. Means are over the sources that chose them.

    Attributes:
        purpose: the question that the label answers.
        threshold: of the probability.
        lesion_threshold: of the lesion probability.
        rule: how they were chosen.
        low, high: 95 % of the thresholds that the same rule chooses on resamples of the patients.
        sources: by left-out source and class of its negatives: healthy, other disease, unknown.
    """

    purpose: str = ""
    threshold: float
    lesion_threshold: float = 0.0
    rule: str
    sensitivity: float
    specificity: float
    low: float | None = None
    high: float | None = None
    sources: dict[str, dict[str, Rates]] = Field(default_factory=dict)

    @property
    def rule_with_range(self) -> str:
        """The rule in words, with the range of thresholds on resampled patients where it is known."""
        if self.low is None or self.high is None:
            return self.rule
        return f"{self.rule}; on resampled patients it chooses {self.low:g} to {self.high:g}"


def choose_threshold(sources: Mapping[str, SourceAnswers]) -> float:
    """Choose a threshold to two decimals: nearest to 0.5 of those with nearly the best mean balanced accuracy.

    It depends less on the sample than the best threshold does, and is better on sources that chose nothing
    (docs/experiments.md).
    """
    candidates = np.round(np.arange(0.02, 0.99, 0.01), 2)
    mean = mean_rates(sources, candidates).mean(0)
    good = candidates[mean >= mean.max() - THRESHOLD_TOLERANCE]
    return float(good[np.abs(good - 0.5).argmin()])


def mean_rates(sources: Mapping[str, SourceAnswers], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute mean sensitivity and specificity over sources at each of T thresholds: float64 (2, T)."""
    rates = np.array([_rates(each, thresholds) for each in sources.values()])
    return np.asarray(rates.mean(0), np.float64)


def threshold_range(
    sources: Mapping[str, SourceAnswers], choose: Callable[[Mapping[str, SourceAnswers]], float], seed: int
) -> tuple[float, float]:
    """Find the range of 95 % of the thresholds that a rule chooses on resamples of the patients."""
    draws = [
        resamples(each, _THRESHOLD_RESAMPLES, derive_seed(seed, "threshold", name)) for name, each in sources.items()
    ]
    chosen = [
        choose({name: each.take(rows) for (name, each), rows in zip(sources.items(), resample, strict=True)})
        for resample in zip(*draws, strict=True)
    ]
    low, high = np.percentile(chosen, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)


def score_rates(answers: SourceAnswers, threshold: float, seed: int) -> Rates:
    """Score one source at a threshold; intervals resample its groups, because slices of a patient are alike."""
    rows = [np.arange(len(answers.labels)), *resamples(answers, RESAMPLES, derive_seed(seed, "rates"))]
    called, positive = answers.probability >= threshold, answers.labels == 1
    return Rates(
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        sensitivity=interval(np.array([called[own][positive[own]].mean() for own in rows])),
        specificity=interval(np.array([(~called[own][~positive[own]]).mean() for own in rows])),
    )


def resamples(answers: SourceAnswers, count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw groups with replacement, with all their slices, until `count` resamples have both classes."""
    names, group = np.unique(answers.groups, return_inverse=True)
    members = [np.flatnonzero(group == number) for number in range(len(names))]
    generator = np.random.default_rng(seed)
    while count:
        drawn = np.concatenate([members[number] for number in generator.integers(len(names), size=len(names))])
        if 0 < answers.labels[drawn].sum() < len(drawn):
            count -= 1
            yield drawn


def _rates(answers: SourceAnswers, thresholds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    below = []
    for label in (1, 0):
        own = np.sort(answers.probability[answers.labels == label])
        below.append(np.searchsorted(own, thresholds, side="left") / len(own))
    return 1 - below[0], below[1]
