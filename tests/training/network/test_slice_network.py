import torch

from tests.support.slices import slices
from training.network.heads import ClassifierHead
from training.network.slice_network import SliceNetwork
from training.network.vgg import Normalise
from training.recipe import RECIPES, Recipe


def test_a_network_turns_grey_bytes_into_two_logits(network: SliceNetwork) -> None:
    assert network(slices(3)).shape == (3, 2)
    assert [each.shape for each in network.maps(slices(3))] == [(3, 256, 8, 8), (3, 512, 4, 4)]


def test_a_new_network_lets_the_signal_through_all_its_layers(network: SliceNetwork) -> None:
    for maps in network.maps(slices(2)):
        assert maps.isfinite().all()
        assert maps.std() > 0.01


def test_normalisation_is_imagenets_on_three_equal_channels(network: SliceNetwork) -> None:
    normalised = network.normalise(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(normalised[0, :, 0, 0], torch.tensor(expected))


def test_a_magnified_slice_is_seen_as_one_of_the_larger_size_without_finer_detail(recipe: Recipe) -> None:
    magnifying, plain = Normalise(magnify=1.25), Normalise()
    assert SliceNetwork(recipe.override(magnify=1.5).network).normalise(slices(1)).shape == (1, 3, 48, 48)
    pair = slices(2)
    larger = torch.nn.functional.interpolate(plain(pair), size=(40, 40), mode="bilinear")
    torch.testing.assert_close(magnifying(pair), larger, rtol=0, atol=1e-5)


def test_autocast_does_not_reach_the_covariances(recipe: Recipe) -> None:
    torch.manual_seed(7)
    network = SliceNetwork(recipe.network).eval()
    maps = network.maps(slices(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network.logits(maps)
    torch.testing.assert_close(inside, network.logits(maps), rtol=0, atol=0)


def test_the_seed_recipe_replaces_the_classifiers_last_layer_with_two_outputs() -> None:
    network = SliceNetwork(RECIPES["seed"].network)
    assert isinstance(network.head, ClassifierHead)
    widths = [(m.in_features, m.out_features) for m in network.head.layers if isinstance(m, torch.nn.Linear)]
    assert widths == [(25088, 4096), (4096, 4096), (4096, 2)]
    assert network(slices(2)).shape == (2, 2)
