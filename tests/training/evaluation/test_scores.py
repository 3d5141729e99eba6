import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from training.evaluation.scores import bootstrap_weights, score, shares_up_to, weighted_scores

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])


PROBABILITIES = torch.tensor([0.1, 0.2, 0.6, 0.5, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])


def test_the_confusion_matrix_counts_a_probability_at_the_threshold_as_covid() -> None:
    matrix = score(PROBABILITIES, LABELS, 0.5, seed=0).confusion_matrix
    assert (matrix.true_positives, matrix.false_positives) == (5, 2)
    assert (matrix.true_negatives, matrix.false_negatives) == (2, 1)


@pytest.mark.parametrize(("threshold", "sensitivity", "specificity"), [(0.0, 1.0, 0.0), (1.0, 1 / 6, 1.0)])
def test_a_threshold_may_lie_at_either_end(threshold: float, sensitivity: float, specificity: float) -> None:
    # where the youden rule puts it if probabilities are 0 or 1 themselves
    probabilities = torch.tensor([0.0] * 8 + [0.9, 1.0])
    figures = score(probabilities, LABELS, threshold, seed=0).figures
    assert figures["sensitivity"].value == pytest.approx(sensitivity, abs=5e-5)
    assert figures["specificity"].value == specificity


def test_figures_agree_with_scikit_learn_on_random_predictions() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 203)
    probabilities = np.clip(random.random(203) * 0.7 + labels * 0.25, 0, 1).astype(np.float32)
    called = probabilities >= 0.4
    figures = score(torch.from_numpy(probabilities), torch.from_numpy(labels), 0.4, seed=0)
    expected = {
        "accuracy": metrics.accuracy_score(labels, called),
        "sensitivity": metrics.recall_score(labels, called),
        "specificity": metrics.recall_score(labels, called, pos_label=0),
        "precision": metrics.precision_score(labels, called),
        "f1": metrics.f1_score(labels, called),
        "npv": metrics.precision_score(1 - labels, ~called),
        "auc": metrics.roc_auc_score(labels, probabilities),
        "auprc": metrics.average_precision_score(labels, probabilities),
        "log_loss": metrics.log_loss(labels, probabilities.astype(np.float64).clip(1e-7, 1 - 1e-7)),
        "brier": metrics.brier_score_loss(labels, probabilities),
    }
    values = {name: interval.value for name, interval in figures.figures.items()}
    assert values.pop("calibration_error") > 0
    assert values == pytest.approx(expected, abs=5e-5)  # rounded to four decimals


def test_intervals_hold_their_figure_and_shrink_with_more_slices() -> None:
    few = score(PROBABILITIES, LABELS, 0.5, seed=0).figures
    many = score(PROBABILITIES.repeat(20), LABELS.repeat(20), 0.5, seed=0).figures
    for name, interval in few.items():
        assert interval.low <= interval.value <= interval.high
        assert many[name].value == pytest.approx(interval.value)
        assert many[name].high - many[name].low < interval.high - interval.low


def test_the_interval_of_auc_is_as_wide_as_hanley_and_mcneil_say() -> None:
    """Hanley & McNeil 1982 (doi 10.1148/radiology.143.1.7063747) give the standard error for normal scores."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    scores = torch.sigmoid(torch.randn(200, generator=generator) + 1.2 * labels)
    auc = score(scores, labels, 0.5, seed=0).figures["auc"]
    q1, q2 = auc.value / (2 - auc.value), 2 * auc.value**2 / (1 + auc.value)
    variance = (auc.value * (1 - auc.value) + 99 * (q1 - auc.value**2) + 99 * (q2 - auc.value**2)) / 100**2
    assert (auc.high - auc.low) / (2 * 1.96) == pytest.approx(math.sqrt(variance), rel=0.2)


def test_a_weight_counts_a_slice_so_often_with_ties_as_scikit_learn_does() -> None:
    random = np.random.default_rng(1)
    scores = random.integers(0, 6, 60) / 5
    labels = random.integers(0, 2, 60)
    weights = random.integers(0, 4, (60, 3)).astype(np.float64)
    values = weighted_scores(scores, labels, 0.5, weights)
    for name, metric in (("auc", metrics.roc_auc_score), ("auprc", metrics.average_precision_score)):
        expected = [metric(labels, scores, sample_weight=column) for column in weights.T]
        assert values[name] == pytest.approx(expected)  # type: ignore[index]
    expected = [metrics.accuracy_score(labels, scores >= 0.5, sample_weight=column) for column in weights.T]
    assert values["accuracy"] == pytest.approx(expected)


def test_intervals_resample_patients_and_a_patient_has_one_mean() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    patients = [f"{label} {i // 8}" for label in (0, 1) for i in range(40)]
    of_patient = np.repeat(generator.normal(0, 1, 10), 8)
    probabilities = 1 / (1 + np.exp(-(of_patient + labels)))
    by_slice = score(probabilities, labels, 0.5, seed=0)
    by_patient = score(probabilities, labels, 0.5, seed=0, groups=patients)
    assert by_slice.patients is None
    assert by_patient.patients is not None
    assert (by_patient.patients.count, by_patient.patients.positives) == (10, 5)
    assert by_patient.figures["auc"].value == by_slice.figures["auc"].value == by_patient.patients.figures["auc"].value
    widths = [scores.figures["auc"].high - scores.figures["auc"].low for scores in (by_slice, by_patient)]
    assert widths[1] > 1.5 * widths[0]


def test_a_resample_has_as_many_groups_of_each_class_as_the_set() -> None:
    labels, groups = np.array([1, 1, 1, 0, 0, 0]), list("aabbcd")
    weights = bootstrap_weights(labels, 0, groups, 50)
    assert weights.shape == (6, 51)
    assert weights[:, 0].tolist() == [1] * 6
    assert (weights[0] == weights[1]).all(), "slices of a group are drawn together"
    assert (weights[1] + weights[2] == 2).all()
    assert (weights[3:].sum(0) == 3).all()


def test_shares_count_values_at_a_bound_and_end_at_all() -> None:
    shares = shares_up_to([0.0, 0.0, 0.01, 0.3, 0.9, 1.0], (0.0, 0.01, 0.2, 0.3, 1.0))
    assert shares == {0.0: 0.3333, 0.01: 0.5, 0.2: 0.5, 0.3: 0.6667, 1.0: 1.0}
