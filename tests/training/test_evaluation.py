import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from training.config import RECIPES
from training.data import CovidCt
from training.evaluation import Predictions, choose_gate, choose_threshold, figures_of, fit_temperature, reencoded

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
PROBABILITIES = torch.tensor([0.1, 0.2, 0.6, 0.5, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])


def test_the_confusion_matrix_counts_a_probability_at_the_threshold_as_covid() -> None:
    matrix = figures_of(PROBABILITIES, LABELS, 0.5, seed=0).confusion_matrix
    assert matrix.model_dump() == {
        "true_positives": 5,
        "false_positives": 2,
        "true_negatives": 2,
        "false_negatives": 1,
    }


def test_figures_agree_with_scikit_learn_on_random_predictions() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 203)
    probabilities = np.clip(random.random(203) * 0.7 + labels * 0.25, 0, 1).astype(np.float32)
    called = probabilities >= 0.4
    figures = figures_of(torch.from_numpy(probabilities), torch.from_numpy(labels), 0.4, seed=0)
    expected = {
        "accuracy": metrics.accuracy_score(labels, called),
        "sensitivity": metrics.recall_score(labels, called),
        "specificity": metrics.recall_score(labels, called, pos_label=0),
        "precision": metrics.precision_score(labels, called),
        "f1": metrics.f1_score(labels, called),
        "auc": metrics.roc_auc_score(labels, probabilities),
    }
    assert {name: interval.value for name, interval in figures.figures.items()} == pytest.approx(expected, abs=1e-6)
    assert figures.brier_score == pytest.approx(metrics.brier_score_loss(labels, probabilities), abs=1e-6)


def test_intervals_hold_their_figure_and_shrink_with_more_slices() -> None:
    few = figures_of(PROBABILITIES, LABELS, 0.5, seed=0).figures
    many = figures_of(PROBABILITIES.repeat(20), LABELS.repeat(20), 0.5, seed=0).figures
    for name, interval in few.items():
        assert interval.low <= interval.value <= interval.high
        assert many[name].value == pytest.approx(interval.value)
        assert many[name].high - many[name].low < interval.high - interval.low


def test_the_interval_of_auc_is_as_wide_as_hanley_and_mcneil_say() -> None:
    """Hanley & McNeil 1982 (doi 10.1148/radiology.143.1.7063747) give the standard error for normal scores."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    scores = torch.sigmoid(torch.randn(200, generator=generator) + 1.2 * labels)
    auc = figures_of(scores, labels, 0.5, seed=0).figures["auc"]
    q1, q2 = auc.value / (2 - auc.value), 2 * auc.value**2 / (1 + auc.value)
    variance = (auc.value * (1 - auc.value) + 99 * (q1 - auc.value**2) + 99 * (q2 - auc.value**2)) / 100**2
    assert (auc.high - auc.low) / (2 * 1.96) == pytest.approx(math.sqrt(variance), rel=0.2)


def test_youden_chooses_the_cut_with_the_highest_sum_midway_between_two_probabilities() -> None:
    threshold = choose_threshold(PROBABILITIES, LABELS, RECIPES["best"])
    assert threshold.value == pytest.approx((0.6 + 0.7) / 2)
    assert "Youden" in threshold.rule


def test_sensitivity_90_chooses_the_highest_cut_that_keeps_nine_in_ten() -> None:
    labels = torch.tensor([0] * 5 + [1] * 10)
    probabilities = torch.cat([torch.linspace(0.1, 0.3, 5), torch.linspace(0.2, 0.95, 10)])
    recipe = RECIPES["best"].override(threshold_rule="sensitivity-90")
    value = choose_threshold(probabilities, labels, recipe).value
    assert ((probabilities >= value) & (labels == 1)).sum() == 9
    higher = probabilities[(probabilities >= value)].min().item() + 1e-4
    assert ((probabilities >= higher) & (labels == 1)).sum() == 8


def test_half_is_fixed() -> None:
    assert choose_threshold(PROBABILITIES, LABELS, RECIPES["seed"]).value == 0.5


def test_the_temperature_undoes_a_known_overconfidence() -> None:
    generator = torch.Generator().manual_seed(0)
    margin = 2 * torch.randn(4000, generator=generator)
    labels = (torch.rand(4000, generator=generator) < torch.sigmoid(margin)).long()
    logits = torch.stack([-margin / 2, margin / 2], dim=1)
    assert fit_temperature(logits, labels) == pytest.approx(1.0, rel=0.1)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3.0, rel=0.1)


def test_the_temperature_of_perfectly_separated_logits_is_bounded() -> None:
    logits = torch.tensor([[5.0, -5.0], [-5.0, 5.0]])
    assert 0.05 <= fit_temperature(logits, torch.tensor([0, 1])) < 1


def test_the_gate_flags_one_validation_slice_in_a_hundred() -> None:
    scores = torch.arange(100.0)
    flat = torch.full((100,), 0.5)
    gate = choose_gate({"val": Predictions(flat, scores), "test": Predictions(flat, scores + 50)})
    assert gate.flagged == pytest.approx({"val": 0.01, "test": 0.51})


def test_reencoding_makes_every_slice_alike_but_keeps_labels_and_paths(data: CovidCt) -> None:
    alike = reencoded(data.test)
    assert {scan.ct_slice.shape for scan in alike.scans} == {(1, 256, 256)}
    assert [(scan.path, scan.label) for scan in alike.scans] == [(scan.path, scan.label) for scan in data.test.scans]
