import numpy as np

from training.evaluation.by_source import SourcePredictions
from training.evaluation.operating_points import (
    OperatingPoint,
    choose_threshold,
    score_rates,
    threshold_range,
)


def _source(middle: float, seed: int = 0) -> SourcePredictions:
    """Two classes whose log odds lie 0.8 below and above `middle`."""
    labels = np.repeat([0, 1], 200)
    odds = np.random.default_rng(seed).normal(0, 0.1, 400) + middle + np.where(labels == 1, 0.8, -0.8)
    return SourcePredictions(odds, labels, np.array([str(i // 4) for i in range(400)]))


def test_the_threshold_separates_what_can_be_separated() -> None:
    source = SourcePredictions(np.array([-3.0, -2.0, 1.0, 2.0]), np.array([0, 0, 1, 1]), np.array(list("abcd")))
    threshold = choose_threshold({"a": source})
    rates = score_rates(source, threshold, seed=0)
    assert (rates.sensitivity.value, rates.specificity.value) == (1.0, 1.0)
    assert 0.12 < threshold < 0.73


def test_of_thresholds_that_are_nearly_as_good_the_one_nearest_to_one_half_is_taken() -> None:
    assert choose_threshold({"a": _source(0.3)}) == 0.5
    assert choose_threshold({"a": _source(1.5)}) > 0.6


def test_the_range_of_a_threshold_contains_it() -> None:
    sources = {"a": _source(1.5), "b": _source(1.0, seed=1)}
    low, high = threshold_range(sources, seed=0)
    assert low <= choose_threshold(sources) <= high


def test_rates_of_a_source_are_those_at_the_threshold_with_intervals_over_its_groups() -> None:
    odds = np.array([-2.0, 1.0, -1.0, 2.0, 3.0, -3.0, 2.5, 0.5])
    labels = np.array([0, 0, 1, 1, 1, 0, 1, 1])
    rates = score_rates(SourcePredictions(odds, labels, np.array(list("aabbccdd"))), 0.5, seed=0)
    assert (rates.positives, rates.negatives) == (5, 3)
    assert (rates.sensitivity.value, rates.specificity.value) == (0.8, 0.6667)
    assert rates.sensitivity.low < 0.8 < rates.sensitivity.high


def test_a_range_that_is_not_known_is_not_in_the_rule() -> None:
    point = OperatingPoint(threshold=0.5, rule="fixed", sensitivity=1, specificity=1)
    assert point.rule_with_range == "fixed"
    ranged = point.model_copy(update={"low": 0.25, "high": 0.75})
    assert ranged.rule_with_range == "fixed; on resampled patients it chooses 0.25 to 0.75"
