import pytest
import torch

from training.network.lung_box import crop, find_box, place_back, set_tone


def _lung() -> torch.Tensor:
    lung = torch.zeros(1, 64, 64)
    lung[:, 16:48, 8:56] = 1.0
    return lung


def test_the_box_is_that_of_the_lungs_and_a_margin() -> None:
    box = find_box(_lung(), margin=0.0)[0]
    assert box.tolist() == pytest.approx([8 / 64, 56 / 64, 16 / 64, 48 / 64], abs=0.01)
    wider = find_box(_lung(), margin=0.1)[0]
    assert wider[0] < box[0]
    assert wider[3] > box[3]


def test_a_speck_far_from_the_lungs_does_not_move_the_box() -> None:
    lung = _lung()
    lung[:, 62, 62] = 1.0
    assert torch.allclose(find_box(lung), find_box(_lung()), atol=0.02)


def test_without_lungs_the_box_is_the_whole_slice() -> None:
    assert find_box(torch.zeros(2, 64, 64)).tolist() == [[0.0, 1.0, 0.0, 1.0]] * 2


def test_a_map_of_the_box_goes_back_to_its_place() -> None:
    picture = torch.rand(1, 1, 80, 80)
    picture = torch.nn.functional.avg_pool2d(picture, 9, 1, 4)
    box = torch.tensor([[0.25, 0.75, 0.125, 0.875]])
    back = place_back(crop(picture, box, 120, 80), box, 80, 80)
    assert torch.allclose(back[:, :, 15:65, 25:55], picture[:, :, 15:65, 25:55], atol=0.02)
    assert back[:, :, :8].abs().max() == 0


@pytest.mark.parametrize(("gain", "shift"), [(1.0, 0.0), (0.4, 0.3), (0.7, -0.02)])
def test_the_tone_is_the_same_in_every_window(gain: float, shift: float) -> None:
    lung = _lung()[:, None]
    grey = 0.9 - 0.6 * lung + 0.02 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    usual = set_tone(grey, lung)
    assert torch.allclose(set_tone(gain * grey + shift, lung), usual, atol=1e-3)
    assert usual[lung > 0.5].mean() < 0.2
    assert usual[lung < 0.5].mean() > 0.7
