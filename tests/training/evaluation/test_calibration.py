import pytest
import torch

from training.evaluation.calibration import reliability


def test_the_reliability_of_calibrated_probabilities_lies_on_the_diagonal() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.sigmoid(2 * torch.randn(20000, generator=generator))
    labels = (torch.rand(20000, generator=generator) < probabilities).long()
    bins = reliability(probabilities, labels)
    assert sum(each.count for each in bins) == 20000
    for each in bins:
        assert each.mean_probability is not None
        assert each.low <= each.mean_probability <= each.high
        assert each.share_of_covid == pytest.approx(each.mean_probability, abs=0.05)


def test_a_bin_without_slices_has_no_share_and_one_is_in_the_last_bin() -> None:
    bins = reliability(torch.tensor([0.05, 1.0]), torch.tensor([0, 1]))
    assert [each.count for each in bins] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert bins[5].share_of_covid is None
    assert bins[-1].share_of_covid == 1.0
