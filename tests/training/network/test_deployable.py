import pytest
import torch

from tests.support.slices import slices
from training.network.deployable import Density, Deployable, contrast_of, fold_batch_norms
from training.network.slice_network import SliceNetwork
from training.recipe import Recipe


def test_folding_keeps_the_function_even_where_fp16_could_not_hold_a_running_variance(recipe: Recipe) -> None:
    torch.manual_seed(4)
    network = SliceNetwork(recipe.network).eval()
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


def test_the_density_gives_training_like_features_about_one_and_strange_ones_more() -> None:
    torch.manual_seed(3)
    mixing = torch.randn(4, 20)
    features = torch.randn(200, 4) @ mixing + 0.1 * torch.randn(200, 20)
    density = Density(20, 4)
    density.fit(features)
    usual = density(features)
    assert 0.7 < usual.mean() < 1.3
    assert density(10 * torch.randn(50, 4) @ mixing).min() > usual.median()
    assert density(features + 5 * torch.randn(200, 20)).median() > 10 * usual.max()


def test_the_deployable_answers_probability_score_and_heatmap(network: SliceNetwork) -> None:
    density = Density(2 * (256 + 512) + 2 * 36, 8)
    density.fit(network.head.density_features(network.maps(slices(12))).detach())
    probability, score, heatmap = Deployable(network, 2.0, density).eval()(slices(3))
    torch.testing.assert_close(probability, torch.softmax(network(slices(3)) / 2.0, 1)[:, 1], rtol=0, atol=1e-5)
    assert score.shape == (3,)
    assert heatmap.shape == (3, 8, 8), "that of the finest map"
    assert {probability.dtype, score.dtype, heatmap.dtype} == {torch.float32}


def test_a_page_without_contrast_scores_far_above_what_its_features_say(network: SliceNetwork) -> None:
    density = Density(2 * (256 + 512) + 2 * 36, 8)
    density.fit(network.head.density_features(network.maps(slices(12))).detach())
    deployable = Deployable(network, 1.0, density, least_contrast=20.0).eval()
    grey = torch.full((1, 1, 32, 32), 120, dtype=torch.uint8)
    assert deployable(grey)[1].item() == pytest.approx(
        400 * density(network.head.density_features(network.maps(grey))).item(), rel=1e-3
    )
    contrasty = slices(3)
    assert contrast_of(contrasty).min() > 20
    torch.testing.assert_close(
        deployable(contrasty)[1], density(network.head.density_features(network.maps(contrasty))), rtol=1e-3, atol=0
    )
