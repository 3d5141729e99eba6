import pytest
import torch

from training.thresholds import choose_threshold, operating_points

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


def test_half_is_fixed() -> None:
    assert choose_threshold(PROBABILITIES, LABELS, "half").value == 0.5


def test_an_operating_point_is_chosen_on_validation_and_told_for_both_splits() -> None:
    test = torch.tensor([0.1, 0.9, 0.2, 0.8])
    points = operating_points((PROBABILITIES, LABELS), (test, torch.tensor([0, 1, 1, 0])), seed=0)
    assert set(points) == {"half", "youden", "sensitivity-90"}
    for rule, point in points.items():
        assert point.threshold == choose_threshold(PROBABILITIES, LABELS, rule)
    assert points["half"].val["sensitivity"].value == pytest.approx(5 / 6)
    assert points["half"].test["accuracy"].value == pytest.approx(0.5)
    assert points["sensitivity-90"].val["sensitivity"].value >= 0.9
