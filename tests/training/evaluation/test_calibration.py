import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from service.model.card import Calibration
from training.evaluation.by_source import SourcePredictions
from training.evaluation.calibration import (
    LOSS_TOLERANCE,
    apply,
    choose_calibration,
    fit_platt,
    reliability,
)


def _source(slope: float, shift: float, count: int = 600, seed: int = 0) -> SourcePredictions:
    """Predictions with correct log odds that were then stretched and shifted."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(0, 2, count)
    labels = (generator.random(count) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return SourcePredictions(slope * odds + shift, labels, np.array([str(i) for i in range(count)]))


@pytest.mark.parametrize(
    ("kind", "stretches", "shifts"),
    [
        ("platt", (1.0, 1.0), (3.0, 3.0)),
        ("temperature", (4.0, 4.0), (1.0, -1.0)),
        ("none", (0.4, 2.5), (0.0, 0.0)),
    ],
)
def test_the_kind_of_calibration_that_helps_other_sources_is_chosen(
    kind: str, stretches: tuple[float, float], shifts: tuple[float, float]
) -> None:
    sources = {
        name: _source(stretch, shift, seed=seed)
        for seed, (name, stretch, shift) in enumerate(zip("ab", stretches, shifts, strict=True))
    }
    platt, trials = choose_calibration(sources)
    assert platt.rule.startswith(kind)
    assert platt.slope == (1.0 if kind == "none" else pytest.approx(1 / stretches[0], rel=0.15))
    assert platt.offset == (pytest.approx(-3.0, abs=0.4) if kind == "platt" else 0.0)
    assert min(trials, key=lambda name: trials[name].log_loss) == kind


def test_a_trial_without_calibration_is_the_log_loss_of_the_probabilities_themselves() -> None:
    sources = {"a": _source(2.0, 1.0), "b": _source(2.0, -1.0, seed=1)}
    platt, trials = choose_calibration(sources)
    losses = []
    for source in sources.values():
        share = source.labels.mean()
        weights = np.where(source.labels == 1, 1 / share, 1 / (1 - share))
        losses.append(log_loss(source.labels, 1 / (1 + np.exp(-source.log_odds)), sample_weight=weights))
    assert trials["none"].log_loss == pytest.approx(np.mean(losses), abs=1e-4)
    calibrated = sources["a"].calibrated(platt.slope, platt.offset)
    assert np.array_equal(calibrated.probability.argsort(), sources["a"].log_odds.argsort())


def test_a_calibration_that_helps_less_than_networks_differ_is_not_used() -> None:
    platt, trials = choose_calibration({"a": _source(1.25, 0.0), "b": _source(1.25, 0.0, seed=1)})
    assert 0 < trials["none"].log_loss - trials["temperature"].log_loss < LOSS_TOLERANCE
    assert (platt.slope, platt.offset) == (1.0, 0.0)
    assert platt.rule.startswith("none")


def test_a_large_source_weighs_no_more_than_a_small_one() -> None:
    trials = choose_calibration({"small": _source(1, 2, 200), "large": _source(1, -2, 2000, seed=1)})[1]
    assert trials["platt"].offset == pytest.approx(0.0, abs=0.4)


def test_a_single_source_calibrates_nothing() -> None:
    platt, trials = choose_calibration({"a": _source(1.0, 3.0)})
    assert (platt.slope, platt.offset, trials) == (1.0, 0.0, {})
    assert platt.rule == "none: a is the only left-out source"


def test_log_odds_without_a_zero_of_their_own_are_always_fitted() -> None:
    sources = {"a": _source(1.05, 0.1), "b": _source(1.05, 0.1, seed=1)}
    platt, trials = fit_platt(sources)
    assert platt.slope == pytest.approx(1 / 1.05, rel=0.15)
    assert platt.offset != 0
    assert trials.keys() == {"platt"}
    turned, _ = fit_platt({"a": _source(-3.0, 0.0)})
    assert (turned.slope, turned.offset) == (1.0, 0.0)
    assert turned.rule.startswith("none")
    assert fit_platt({})[0].rule == "none: no left-out source tells"


def test_calibrated_probabilities_are_those_of_the_calibrated_log_odds() -> None:
    source = _source(1.0, 0.0)
    platt = Calibration(slope=0.5, offset=1.0, rule="")
    calibrated = apply(platt, source.probability.astype(np.float32))
    assert calibrated == pytest.approx(source.calibrated(platt.slope, platt.offset).probability, abs=1e-4)
    assert np.isfinite(apply(platt, np.array([0.0, 1.0], np.float32))).all()


def test_probabilities_in_the_wrong_order_are_not_turned_around() -> None:
    sources = {"a": _source(-3.0, 0.0), "b": _source(-3.0, 0.0, seed=1)}
    platt, trials = choose_calibration(sources)
    assert trials["temperature"].slope < 0
    assert platt.slope > 0


def test_the_reliability_of_calibrated_probabilities_lies_on_the_diagonal() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.sigmoid(2 * torch.randn(20000, generator=generator))
    labels = (torch.rand(20000, generator=generator) < probabilities).long()
    bins = reliability(probabilities, labels)
    assert sum(bin_.slices for bin_ in bins) == 20000
    for place, bin_ in enumerate(bins):
        assert place / 10 <= bin_.mean_probability <= (place + 1) / 10
        assert bin_.share_of_covid == pytest.approx(bin_.mean_probability, abs=0.05)


def test_a_bin_without_slices_has_no_point_and_one_is_in_the_last_bin() -> None:
    bins = reliability(torch.tensor([0.05, 0.95, 1.0]), torch.tensor([0, 0, 1]))
    assert [(bin_.slices, bin_.share_of_covid) for bin_ in bins] == [(1, 0.0), (2, 0.5)]
