import pytest
import torch

from training.config import Recipe
from training.regularisation import StartingPoint, average_of, drop_channels, mix

IMAGES = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).mul(60).expand(4, 1, 8, 8)
LABELS = torch.tensor([0, 1, 1, 0])


def values_of(tensor: torch.Tensor) -> list[float]:
    return sorted(set(tensor.flatten().tolist()))


def test_nothing_is_mixed_by_default(recipe: Recipe) -> None:
    images, targets = mix(IMAGES, LABELS, recipe)
    assert images is IMAGES
    assert targets is LABELS


def test_mixup_blends_a_slice_with_the_one_before_and_says_how_much_of_each(recipe: Recipe) -> None:
    torch.manual_seed(0)
    images, shares = mix(IMAGES, LABELS, recipe.override(mixup=100))
    assert images.dtype == torch.uint8
    own = shares[1, 1].item()
    assert 0.3 < own < 0.7, "near a half with so large an alpha"
    assert shares[1].tolist() == pytest.approx([1 - own, own]), "a COVID slice after a NonCOVID one"
    assert shares[2].tolist() == pytest.approx([0, 1]), "both are COVID"
    assert values_of(images[1]) == [round(own * 60)]


def test_cutmix_pastes_a_box_of_the_one_before_and_counts_its_area(recipe: Recipe) -> None:
    torch.manual_seed(1)
    images, shares = mix(IMAGES, LABELS, recipe.override(cutmix=1))
    pasted = (images[1] == 0).float().mean().item()
    assert 0 < pasted < 1
    assert values_of(images[1]) == [0, 60]
    assert shares[1, 0].item() == pytest.approx(pasted)


def test_with_both_on_each_batch_is_mixed_by_one(recipe: Recipe) -> None:
    torch.manual_seed(0)
    recipe = recipe.override(mixup=1, cutmix=1)
    kinds = [len(values_of(mix(IMAGES, LABELS, recipe)[0][1])) for _ in range(20)]
    assert set(kinds) == {1, 2}


def test_whole_channels_are_dropped_and_the_others_scaled_up() -> None:
    torch.manual_seed(0)
    (dropped,) = drop_channels([torch.ones(2, 400, 3, 3)], 0.25)
    assert values_of(dropped) == pytest.approx([0, 4 / 3])
    assert (dropped.flatten(2).std(2) == 0).all()
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_the_pull_solves_for_the_weight_after_the_step() -> None:
    free, held = torch.nn.Parameter(torch.tensor([1.0])), torch.nn.Parameter(torch.tensor([1.0]))
    groups = [{"params": [free], "lr": 0.5}, {"params": [held], "lr": 0.5, "l2_sp": 2.0}]
    start = StartingPoint(torch.optim.SGD(groups))
    with torch.no_grad():
        free.fill_(5)
        held.fill_(5)
    start.pull()
    assert free.item() == 5
    assert held.item() == pytest.approx((5 + 0.5 * 2 * 1) / (1 + 0.5 * 2))


def test_the_average_starts_where_the_network_is_and_follows_it() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 1.0)
    average = average_of(network, decay=0.75)
    torch.nn.init.constant_(network.weight, 5.0)
    average.update_parameters(network)
    assert average.module.get_parameter("weight").item() == pytest.approx(0.75 * 1 + 0.25 * 5)
