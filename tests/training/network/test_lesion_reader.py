from typing import cast

import pytest
import torch
from torch import nn

from training.network.lesion_network import BOUND, AppearanceProbe, LesionNetwork, log_probability, surest_lesion
from training.network.lesion_reader import LesionReader, involvement
from training.network.lung_finder import LungFinder
from training.network.view_checker import ViewChecker

pytestmark = pytest.mark.usefixtures("thin")

SLICES = torch.randint(0, 256, (2, 1, 320, 320), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


class _Finder(nn.Module):
    """Finds lungs in two bands of every picture, or none."""

    def __init__(self, *, finds: bool = True) -> None:
        super().__init__()
        self.lung = torch.full((1, 1, 64, 64), -9.0)
        if finds:
            self.lung[:, :, 16:48, 8:28] = self.lung[:, :, 16:48, 36:56] = 9.0

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count = picture.shape[0]
        return self.lung.repeat(count, 1, 1, 1), torch.full((count, 2), -9.0)


def _reader(*, finds: bool = True) -> LesionReader:
    torch.manual_seed(0)
    network = LesionNetwork().eval()
    probe = AppearanceProbe(network.probed_channels)
    reader = LesionReader(LungFinder().eval(), ViewChecker().eval(), network, probe, (96, 128)).eval()
    reader.finder = cast(LungFinder, _Finder(finds=finds).eval())
    return reader


def test_the_picture_of_the_lung_box_has_the_size_of_the_recipe() -> None:
    seen, *_ = _reader().look(SLICES)
    assert seen.shape == (2, 3, 96, 128)


def test_nothing_outside_the_box_changes_the_prediction() -> None:
    reader, changed = _reader(), SLICES.clone()
    changed[:, :, :48] = 255  # above the box, which begins at 0.25 - 0.06 of its height
    changed[:, :, 272:] = 0
    with torch.inference_mode():
        first, second = reader(SLICES), reader(changed)
    assert torch.equal(first["probability"], second["probability"])
    assert torch.equal(first["heatmap"], second["heatmap"])


def test_maps_are_those_of_the_whole_slice_and_empty_outside_the_box() -> None:
    with torch.inference_mode():
        outputs = _reader()(torch.zeros_like(SLICES))
    assert outputs["heatmap"].shape == outputs["lungs"].shape == (2, 80, 80)
    assert outputs["lungs"][:, :14].abs().max() == 0


def test_a_picture_without_lungs_is_to_be_refused_for_that() -> None:
    with torch.inference_mode():
        outputs = _reader(finds=False)(torch.zeros_like(SLICES))
    assert outputs["no_lungs"].tolist() == [1.0, 1.0]
    assert outputs["lung_fraction"].tolist() == [0.0, 0.0]
    assert all(torch.isfinite(value).all() for value in outputs.values())


def test_the_trained_odds_of_a_lesion_rise_with_its_share() -> None:
    odds = LesionNetwork().evidence(torch.tensor([0.0, 0.001, 0.01, 0.1, 0.5]))
    assert (odds.diff() > 0).all()


def test_appearance_is_bounded() -> None:
    network = LesionNetwork()
    channels = network.probed_channels
    maps = [torch.rand(1, channels, 24, 32) * 1e4, torch.rand(1, channels, 12, 16) * 1e4]
    masks = torch.ones(1, 1, 48, 64)
    assert network.appearance(maps, masks, masks).abs().item() <= BOUND
    assert AppearanceProbe(channels)(maps[1], masks, masks).abs().item() <= BOUND


def test_appearance_is_that_of_the_lesions_and_of_the_lung_where_there_are_none() -> None:
    values = torch.zeros(1, 1, 12, 16)
    values[:, :, 3:6, 4:8] = 5.0  # where the lesion is
    values[:, :, 9:, :] = 100.0  # outside the lung
    lung, lesion = torch.zeros(1, 1, 48, 64), torch.zeros(1, 1, 48, 64)
    lung[:, :, :36] = 1.0
    lesion[:, :, 12:24, 16:32] = 1.0
    probe = AppearanceProbe(1)
    mostly_lesion = 5.0 * 12 * 1.02 / (12 + 0.02 * 9 * 16)  # 12 cells of lesion in 144 of lung
    assert torch.allclose(probe.pool(values, lung, lesion)[0, 0], torch.tensor(mostly_lesion), atol=0.01)
    assert torch.allclose(probe.pool(values, lung, 0 * lesion)[0, 0], values[:, :, :9].mean(), atol=0.01)


def test_the_surest_lesion_is_the_likeliest_cell_inside_a_lung() -> None:
    cells = torch.full((2, 2, 4, 6), -8.0)
    cells[:, 0, 1:3, 1:5] = 8.0  # lung
    cells[0, 1, 0, 0] = 6.0  # outside it
    cells[0, 1, 2, 2] = 1.5
    cells[1, 1, 2, 3] = 4.0
    odds = surest_lesion(cells[:, 1:].sigmoid() * cells[:, :1].sigmoid())
    assert torch.allclose(odds, torch.tensor([1.5, 4.0]), atol=0.05)


def test_the_probability_is_the_product_of_both_calibrated_probabilities() -> None:
    plain, calibrated = _reader(), _reader()
    calibrated.of_lesion, calibrated.of_covid = (0.5, -1.0), (2.0, 0.25)
    with torch.inference_mode():
        before, after = plain(SLICES), calibrated(SLICES)
    for outputs in (before, after):
        assert torch.equal(outputs["probability"], outputs["lesion_probability"] * outputs["covid_given_lesion"])
    for name, slope, offset in (("lesion_probability", 0.5, -1.0), ("covid_given_lesion", 2.0, 0.25)):
        wanted = torch.sigmoid(slope * torch.logit(before[name]) + offset)
        assert torch.allclose(after[name], wanted, atol=1e-5)


def test_a_clear_lung_stays_below_the_probability_of_a_lesion() -> None:
    lesion_odds, appearance = torch.tensor([-3.0]), torch.tensor([BOUND])
    log_p, log_not = log_probability(lesion_odds, appearance)
    assert log_p.exp() <= torch.sigmoid(lesion_odds)
    assert torch.allclose(log_p.exp() + log_not.exp(), torch.ones(1), atol=1e-5)


def test_involvement_is_that_of_both_lungs_and_of_each_half() -> None:
    lung, lesion = torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)
    lung[:, :, 1:3] = lung[:, :, 5:7] = 0.9
    lesion[:, :2, 5:7] = 0.8  # the picture's right, the patient's left
    assert torch.allclose(involvement(lung, lesion), torch.tensor([[0.25, 0.5, 0.0]]))
