import pytest
import torch
from sklearn import metrics

from training.evaluation.calibration import fit_temperature, measure_calibration, reliability


def calibrated(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logit margins of a calibrated classifier and labels drawn with its probabilities."""
    generator = torch.Generator().manual_seed(0)
    margin = 2 * torch.randn(count, generator=generator)
    return margin, (torch.rand(count, generator=generator) < torch.sigmoid(margin)).long()


def test_the_temperature_undoes_a_known_overconfidence() -> None:
    margin, labels = calibrated(4000)
    logits = torch.stack([-margin / 2, margin / 2], dim=1)
    assert fit_temperature(logits, labels) == pytest.approx(1.0, rel=0.1)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3.0, rel=0.1)


def test_the_temperature_of_perfectly_separated_logits_is_bounded() -> None:
    logits = torch.tensor([[5.0, -5.0], [-5.0, 5.0]])
    assert 0.05 <= fit_temperature(logits, torch.tensor([0, 1])) < 1


def test_errors_before_the_temperature_are_those_of_the_logits_as_they_were() -> None:
    margin, labels = calibrated(4000)
    calibration = measure_calibration(torch.sigmoid(margin), labels, temperature=3.0)
    overconfident = torch.sigmoid(3 * margin)
    assert calibration.before.brier_score == pytest.approx(metrics.brier_score_loss(labels, overconfident), abs=1e-6)
    assert calibration.after.brier_score == pytest.approx(
        metrics.brier_score_loss(labels, torch.sigmoid(margin)), abs=1e-6
    )
    assert calibration.after.expected_calibration_error < 0.03 < calibration.before.expected_calibration_error


def test_the_reliability_of_calibrated_probabilities_lies_on_the_diagonal() -> None:
    margin, labels = calibrated(20000)
    bins = reliability(torch.sigmoid(margin), labels)
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
