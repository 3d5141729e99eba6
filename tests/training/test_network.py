from pathlib import Path

import pytest
import torch

from service.artifact import synthetic_slice
from training.config import RECIPES, Recipe
from training.errors import TrainingError
from training.network import (
    ClassifierHead,
    CovarianceHead,
    Density,
    Deployable,
    Normalise,
    PooledHead,
    SliceNetwork,
    contrast_of,
    fold_batch_norms,
    load_imagenet,
    pool,
)


def slices(count: int, size: int = 32) -> torch.Tensor:
    return torch.stack([torch.from_numpy(synthetic_slice(seed, size)) for seed in range(count)])


@pytest.fixture(scope="module")
def network(recipe: Recipe) -> SliceNetwork:
    torch.manual_seed(1)
    return SliceNetwork(recipe).eval()


def test_a_network_turns_grey_bytes_into_two_logits(network: SliceNetwork) -> None:
    assert network(slices(3)).shape == (3, 2)
    assert [each.shape for each in network.maps(slices(3))] == [(3, 512, 5, 5), (3, 512, 2, 2)]


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
    assert SliceNetwork(recipe.override(magnify=1.5)).normalise(slices(1)).shape == (1, 3, 48, 48)
    pair = slices(2)
    larger = torch.nn.functional.interpolate(plain(pair), size=(40, 40), mode="bilinear")
    torch.testing.assert_close(magnifying(pair), larger, rtol=0, atol=1e-5)


def test_the_heatmap_of_the_pooled_head_adds_up_to_the_logit_margin() -> None:
    torch.manual_seed(2)
    head, maps = PooledHead([256, 512]), [torch.rand(3, 256, 10, 8), torch.rand(3, 512, 5, 4)]
    logits = head(maps)
    bias = head.linear.bias[1] - head.linear.bias[0]
    torch.testing.assert_close(head.heatmap(maps).mean((1, 2)) + bias, logits[:, 1] - logits[:, 0])


@pytest.fixture
def covariances() -> CovarianceHead:
    torch.manual_seed(2)
    return CovarianceHead([16, 24], components=6)


@pytest.fixture
def two_maps() -> list[torch.Tensor]:
    torch.manual_seed(5)
    return [torch.rand(3, 16, 10, 8), torch.rand(3, 24, 5, 4)]


def test_the_heatmap_of_the_covariance_head_adds_up_to_the_logit_margin(
    covariances: CovarianceHead, two_maps: list[torch.Tensor]
) -> None:
    logits = covariances(two_maps)
    bias = covariances.linear.bias[1] - covariances.linear.bias[0]
    heatmap = covariances.heatmap(two_maps)
    assert heatmap.shape == (3, 10, 8)
    torch.testing.assert_close(heatmap.mean((1, 2)) + bias, logits[:, 1] - logits[:, 0])


def test_the_covariance_head_knows_what_occurs_together_not_where_nor_how_bright(
    covariances: CovarianceHead, two_maps: list[torch.Tensor]
) -> None:
    before = covariances.pooled(two_maps)
    torch.testing.assert_close(covariances.pooled([each.flip(3) for each in two_maps]), before)
    torch.testing.assert_close(covariances.pooled([each + 5 for each in two_maps]), before, rtol=1e-3, atol=1e-4)
    apart = two_maps[0].clone()
    apart[:, ::2] = apart[:, ::2].flip(2)  # the same values in every channel, at other places in half of them
    assert (covariances.pooled([apart, two_maps[1]]) - before).abs().max() > 0.01


def test_covariances_are_those_of_the_directions_over_the_roots_of_their_deviations(
    covariances: CovarianceHead, two_maps: list[torch.Tensor]
) -> None:
    along = torch.einsum("nchw,ck->nkhw", two_maps[1], covariances.directions[16:]).flatten(2)[0]
    expected = torch.cov(along, correction=0)
    deviations = expected.diag().sqrt()
    expected = expected / torch.outer(deviations, deviations).sqrt()
    expected = expected / expected.norm()
    upper = expected[*torch.triu_indices(6, 6)]
    torch.testing.assert_close(covariances.pooled(two_maps)[0, 21:], upper)


def test_directions_are_the_ones_along_which_the_maps_vary_most(covariances: CovarianceHead) -> None:
    generator = torch.Generator().manual_seed(6)
    spread = torch.arange(1, 17) ** 2  # channel 15 varies most
    maps = [
        3 + spread[:, None, None] * torch.randn(2, 16, 30, 30, generator=generator),
        torch.rand(2, 24, 5, 4, generator=generator),
    ]
    covariances.fit_directions(maps)
    assert covariances.directions[:16].abs().argmax(0).tolist() == [15, 14, 13, 12, 11, 10]
    own = covariances.directions[16:]
    torch.testing.assert_close(own.T @ own, torch.eye(6), rtol=0, atol=1e-4)


def test_autocast_does_not_reach_the_covariances(recipe: Recipe) -> None:
    torch.manual_seed(7)
    network = SliceNetwork(recipe).eval()
    maps = network.maps(slices(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network.logits(maps)
    torch.testing.assert_close(inside, network.logits(maps), rtol=0, atol=0)


def test_covariances_survive_a_dead_channel(covariances: CovarianceHead) -> None:
    maps = [torch.zeros(1, 16, 4, 4, requires_grad=True), torch.zeros(1, 24, 2, 2)]
    covariances.pooled(maps).sum().backward()  # type: ignore[no-untyped-call]
    assert maps[0].grad is not None
    assert maps[0].grad.isfinite().all()


def test_pooling_survives_a_dead_channel() -> None:
    maps = torch.zeros(1, 512, 2, 2, requires_grad=True)
    pool([maps]).sum().backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_the_seed_recipe_replaces_the_classifiers_last_layer_with_two_outputs() -> None:
    network = SliceNetwork(RECIPES["seed"])
    assert isinstance(network.head, ClassifierHead)
    widths = [(m.in_features, m.out_features) for m in network.head.layers if isinstance(m, torch.nn.Linear)]
    assert widths == [(25088, 4096), (4096, 4096), (4096, 2)]
    assert network(slices(2)).shape == (2, 2)


def test_weights_of_the_features_alone_are_loaded_and_said_to_lack_the_classifier(
    weights: Path, recipe: Recipe
) -> None:
    network = SliceNetwork(recipe)
    state = torch.load(weights, weights_only=True)
    assert load_imagenet(network, recipe, weights) == "vgg19_bn.pth"
    torch.testing.assert_close(network.features[0].weight, state["features.0.weight"])
    seed = RECIPES["seed"]
    assert "hidden layers start at random" in load_imagenet(SliceNetwork(seed), seed, weights)


def test_weights_of_another_architecture_are_refused(weights: Path, recipe: Recipe) -> None:
    other = recipe.override(architecture="vgg16_bn")
    with pytest.raises(TrainingError, match=r"vgg19_bn\.pth: not the weights of vgg16_bn"):
        load_imagenet(SliceNetwork(other), other, weights)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, recipe: Recipe, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"weights\.pth: not a PyTorch state dict"):
        load_imagenet(SliceNetwork(recipe), recipe, path)


def test_a_missing_weights_file_is_named(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match=r"gone\.pth: can't read the weights: No such file"):
        load_imagenet(SliceNetwork(recipe), recipe, tmp_path / "gone.pth")


def test_offline_without_a_file_the_error_says_what_to_pass(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(TrainingError, match=r"can't be downloaded.*pass --weights FILE.*vgg19_bn"):
        load_imagenet(SliceNetwork(recipe), recipe, None)


def test_folding_keeps_the_function_even_where_fp16_could_not_hold_a_running_variance(recipe: Recipe) -> None:
    torch.manual_seed(4)
    network = SliceNetwork(recipe).eval()
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
    density = Density(2048 + 2 * 36, 8)
    density.fit(network.head.gate_features(network.maps(slices(12))).detach())
    probability, score, heatmap = Deployable(network, 2.0, density).eval()(slices(3))
    torch.testing.assert_close(probability, torch.softmax(network(slices(3)) / 2.0, 1)[:, 1], rtol=0, atol=1e-5)
    assert score.shape == (3,)
    assert heatmap.shape == (3, 5, 5), "that of the finest map"
    assert {probability.dtype, score.dtype, heatmap.dtype} == {torch.float32}


def test_a_page_without_contrast_scores_far_above_what_its_features_say(network: SliceNetwork) -> None:
    density = Density(2048 + 2 * 36, 8)
    density.fit(network.head.gate_features(network.maps(slices(12))).detach())
    deployable = Deployable(network, 1.0, density, least_contrast=20.0).eval()
    grey = torch.full((1, 1, 32, 32), 120, dtype=torch.uint8)
    assert deployable(grey)[1].item() == pytest.approx(
        400 * density(network.head.gate_features(network.maps(grey))).item(), rel=1e-3
    )
    contrasty = slices(3)
    assert contrast_of(contrasty).min() > 20
    torch.testing.assert_close(
        deployable(contrasty)[1], density(network.head.gate_features(network.maps(contrasty))), rtol=1e-3, atol=0
    )
