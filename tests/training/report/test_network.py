import copy

import pytest
import torch

from tests.support.files.slices import slices
from tests.support.networks.thin_vgg import thin_vgg
from training.network.vgg import fold_batch_norms
from training.report.network import Deployable, SliceNetwork


@pytest.fixture(scope="module")
def network() -> SliceNetwork:
    """A thin one with random weights, in evaluation mode."""
    torch.manual_seed(1)
    with thin_vgg():
        return SliceNetwork("vgg19_bn").eval()


def test_normalisation_is_imagenets_on_three_equal_channels(network: SliceNetwork) -> None:
    normalised = network.normalise(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(normalised[0, :, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize(("architecture", "convolutions"), [("vgg19_bn", 16), ("vgg16_bn", 13)])
@pytest.mark.usefixtures("thin")
def test_both_networks_have_all_their_convolutions(architecture: str, convolutions: int) -> None:
    network = SliceNetwork(architecture)  # type: ignore[arg-type]
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.features) == convolutions
    assert network(slices(3)).shape == (3, 2)


def test_folding_keeps_the_function_even_where_fp16_could_not_hold_a_running_variance(
    network: SliceNetwork,
) -> None:
    network = copy.deepcopy(network)
    for layer in network.features:
        if isinstance(layer, torch.nn.BatchNorm2d) and layer.running_var is not None:
            layer.running_var.fill_(70_797)  # as in ImageNet's first layer; fp16 ends at 65,504
            layer.weight.data.fill_(266)
    folded = fold_batch_norms(network.features)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded)
    x = network.normalise(slices(2))
    for whole, expected in zip(folded(x), network.features(x), strict=True):
        torch.testing.assert_close(whole, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    for rounded, expected in zip(folded.half().float()(x), network.features(x), strict=True):
        assert (rounded - expected).abs().max() < 0.01 * expected.abs().max()


def test_the_deployable_answers_probability_and_heatmap(network: SliceNetwork) -> None:
    outputs = Deployable(network).eval()(slices(3))
    assert outputs.keys() == {"probability", "heatmap"}
    expected = torch.softmax(network(slices(3)), 1)[:, 1]
    torch.testing.assert_close(outputs["probability"], expected, rtol=0, atol=1e-5)
    assert outputs["heatmap"].shape[0] == 3
    assert {output.dtype for output in outputs.values()} == {torch.float32}


def test_the_heatmap_is_activity_relative_to_its_strongest_place(network: SliceNetwork) -> None:
    pictures = slices(3, 64)
    heatmap = Deployable(network).eval()(pictures)["heatmap"]
    assert heatmap.amax((1, 2)).tolist() == pytest.approx([1, 1, 1])
    assert heatmap.min() >= 0
    (last,) = network.features(network.normalise(pictures))
    activity = last.mean(1)
    torch.testing.assert_close(heatmap, activity / activity.amax((1, 2), keepdim=True), rtol=1e-3, atol=1e-4)
