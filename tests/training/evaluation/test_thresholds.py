import pytest
import torch

from training.evaluation.thresholds import choose_threshold, operating_points
from training.recipe import ThresholdRule

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
PROBABILITIES = torch.tensor([0.1, 0.2, 0.6, 0.5, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])


def test_youden_chooses_the_cut_with_the_highest_sum_midway_between_two_probabilities() -> None:
    threshold = choose_threshold(PROBABILITIES, LABELS, "youden")
    assert threshold.value == pytest.approx((0.6 + 0.7) / 2)
    assert "Youden" in threshold.rule


def test_sensitivity_90_chooses_the_highest_cut_that_keeps_nine_in_ten() -> None:
    labels = torch.tensor([0] * 5 + [1] * 10)
    probabilities = torch.cat([torch.linspace(0.1, 0.3, 5), torch.linspace(0.2, 0.95, 10)])
    value = choose_threshold(probabilities, labels, "sensitivity-90").value
    assert ((probabilities >= value) & (labels == 1)).sum() == 9
    higher = probabilities[(probabilities >= value)].min().item() + 1e-4
    assert ((probabilities >= higher) & (labels == 1)).sum() == 8


@pytest.mark.parametrize("rule", ["youden", "sensitivity-90"])
def test_a_rule_says_what_it_was_applied_to_and_gives_the_same_threshold_on_either(rule: ThresholdRule) -> None:
    on_validation = choose_threshold(PROBABILITIES, LABELS, rule, "val")
    out_of_fold = choose_threshold(PROBABILITIES, LABELS, rule, "out-of-fold")
    assert on_validation == choose_threshold(PROBABILITIES, LABELS, rule)
    assert "on the validation split" in on_validation.rule
    assert "on out-of-fold answers to train and validation" in out_of_fold.rule
    assert out_of_fold.value == on_validation.value


def test_half_is_fixed() -> None:
    assert choose_threshold(PROBABILITIES, LABELS, "half").value == 0.5


@pytest.mark.parametrize("reference", ["val", "out-of-fold"])
def test_an_operating_point_is_chosen_on_the_reference_and_scored_there_and_on_test(reference: str) -> None:
    test = torch.tensor([0.1, 0.9, 0.2, 0.8])
    answers = {reference: (PROBABILITIES, LABELS), "test": (test, torch.tensor([0, 1, 1, 0]))}
    points = operating_points(reference, answers, seed=0)
    assert set(points) == {"half", "youden", "sensitivity-90"}
    for rule, point in points.items():
        assert point.threshold == choose_threshold(PROBABILITIES, LABELS, rule, reference)
    assert points["half"].chosen_on["sensitivity"].value == pytest.approx(5 / 6)
    assert points["half"].test["accuracy"].value == pytest.approx(0.5)
    assert points["sensitivity-90"].chosen_on["sensitivity"].value >= 0.9
