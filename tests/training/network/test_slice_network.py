import pytest
import torch

from tests.support.files.slices import slices
from training.network.slice_network import SliceNetwork


def test_normalisation_is_imagenets_on_three_equal_channels(network: SliceNetwork) -> None:
    normalised = network.normalise(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(normalised[0, :, 0, 0], torch.tensor(expected))


def test_a_new_network_lets_the_signal_through_all_its_layers(network: SliceNetwork) -> None:
    (last,) = network.features(network.normalise(slices(2)))
    assert last.isfinite().all()
    assert last.std() > 0.01


@pytest.mark.parametrize(("architecture", "convolutions"), [("vgg19_bn", 16), ("vgg16_bn", 13)])
@pytest.mark.usefixtures("thin")
def test_both_networks_have_all_their_convolutions(architecture: str, convolutions: int) -> None:
    network = SliceNetwork(architecture)  # type: ignore[arg-type]
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.features) == convolutions
    assert network(slices(3)).shape == (3, 2)


def test_the_classifiers_last_layer_is_replaced_by_one_with_two_outputs() -> None:
    network = SliceNetwork("vgg19_bn")
    widths = [(m.in_features, m.out_features) for m in network.head.layers if isinstance(m, torch.nn.Linear)]
    assert widths == [(25088, 4096), (4096, 4096), (4096, 2)]
    assert network(slices(2)).shape == (2, 2)
