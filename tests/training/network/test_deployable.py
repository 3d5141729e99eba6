import copy

import pytest
import torch

from tests.support.files.slices import slices
from training.network.deployable import Deployable, fold_batch_norms
from training.network.slice_network import SliceNetwork


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
    assert {each.dtype for each in outputs.values()} == {torch.float32}


def test_the_heatmap_is_activity_relative_to_its_strongest_place(network: SliceNetwork) -> None:
    pictures = slices(3, 64)
    heatmap = Deployable(network).eval()(pictures)["heatmap"]
    assert heatmap.amax((1, 2)).tolist() == pytest.approx([1, 1, 1])
    assert heatmap.min() >= 0
    (last,) = network.features(network.normalise(pictures))
    activity = last.mean(1)
    torch.testing.assert_close(heatmap, activity / activity.amax((1, 2), keepdim=True), rtol=1e-3, atol=1e-4)
