"""Thresholds with a purpose, chosen on sources that were left out of training."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from pydantic import Field

from service.model.card import Interval
from training.data.ct_slices import CtSlice
from training.evaluation.by_source import (
    SourcePredictions,
    by_negatives,
    is_covid,
    predictions_by_source,
    shows_lesion,
)
from training.evaluation.predictions import Predictions
from training.evaluation.scores import Floats, interval
from training.run.record import Record
from training.run.seeding import derive_seed

_RESAMPLES: Final = 200
"""Bootstrap resamples on which a threshold is chosen again."""

_CANDIDATES: Final = np.round(np.arange(0.02, 0.99, 0.01), 2)

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


def choose_operating_point(
    name: PointName, predictions: Predictions, slices: Sequence[CtSlice], seed: int
) -> OperatingPoint:
    """Choose and score the threshold of one purpose: of the lesion probability for triage, else of the probability."""
    is_triage = name == "triage"
    probability = predictions.lesion_probability if is_triage else predictions.probability
    sources = predictions_by_source(shows_lesion, slices, probability) if is_triage else {}
    # labels are used if no source has both slices with and slices without lesion
    sources = sources or predictions_by_source(is_covid, slices, probability)
    threshold = choose_threshold(sources)
    sensitivity, specificity = _mean_rates(sources, threshold)
    low, high = threshold_range(sources, seed)
    rates: dict[str, dict[str, Rates]] = {}
    for source_name, negatives, source in by_negatives(slices, probability):
        rates.setdefault(source_name, {})[negatives] = score_rates(source, threshold, seed)
    return OperatingPoint(
        purpose=PURPOSES[name],
        threshold=0.0 if is_triage else threshold,
        lesion_threshold=threshold if is_triage else 0.0,
        rule=f"{RULE} over left-out {', '.join(sources)}",
        sensitivity=round(sensitivity, 4),
        specificity=round(specificity, 4),
        low=low,
        high=high,
        sources=rates,
    )


def choose_threshold(sources: Mapping[str, SourcePredictions]) -> float:
    """Choose a threshold to two decimals: nearest to 0.5 of those with nearly the best mean balanced accuracy.

    It depends less on the sample than the best threshold, and is better on sources not used for the choice
    (docs/experiments.md).
    """
    return float(_choose(np.mean([_rates(source, _CANDIDATES) for source in sources.values()], axis=0))[0])


def threshold_range(sources: Mapping[str, SourcePredictions], seed: int) -> tuple[float, float]:
    """Find the range of 95 % of the thresholds that the rule chooses on resamples of the patients."""
    rates = [
        _rates(source, _CANDIDATES, source.resamples(derive_seed(seed, "threshold", name), _RESAMPLES))
        for name, source in sources.items()
    ]
    low, high = np.percentile(_choose(np.mean(rates, axis=0))[1:], [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)


def score_rates(source: SourcePredictions, threshold: float, seed: int) -> Rates:
    """Score one source at a threshold; intervals resample its groups, because slices of a patient are alike."""
    rates = _rates(source, np.array([threshold]), source.resamples(derive_seed(seed, "rates")))
    positives = int(source.labels.sum())
    return Rates(
        positives=positives,
        negatives=len(source.labels) - positives,
        sensitivity=interval(rates[0, 0]),
        specificity=interval(rates[1, 0]),
    )


def _mean_rates(sources: Mapping[str, SourcePredictions], threshold: float) -> tuple[float, float]:
    """Compute mean sensitivity and specificity over sources at a threshold."""
    sensitivity, specificity = np.mean([_rates(source, np.array([threshold])) for source in sources.values()], axis=0)
    return float(sensitivity[0, 0]), float(specificity[0, 0])


def _rates(source: SourcePredictions, thresholds: Floats, weights: Floats | None = None) -> Floats:
    """Compute sensitivity and specificity at T thresholds for R columns of weights: (2, T, R)."""
    weights = np.ones((len(source.labels), 1)) if weights is None else weights
    called = source.probability >= thresholds[:, np.newaxis]
    rates = []
    for label, right in ((1, called), (0, ~called)):
        members = source.labels == label
        rates.append(right[:, members].astype(np.float64) @ weights[members] / weights[members].sum(0))
    return np.stack(rates)


def _choose(rates: Floats) -> Floats:
    """Apply the rule to the rates (2, T, R) at all candidates: (R,)."""
    balanced = rates.mean(0)
    good = balanced >= balanced.max(0) - THRESHOLD_TOLERANCE
    distance = np.where(good, np.abs(_CANDIDATES - 0.5)[:, np.newaxis], np.inf)
    return np.asarray(_CANDIDATES[distance.argmin(0)])
