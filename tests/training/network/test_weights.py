from pathlib import Path

import pytest
import torch

from training.errors import TrainingError
from training.network.slice_network import SliceNetwork
from training.network.weights import load_imagenet
from training.recipe import RECIPES, Recipe


def test_weights_of_the_features_alone_are_loaded_and_said_to_lack_the_classifier(
    weights: Path, recipe: Recipe
) -> None:
    network = SliceNetwork(recipe.network)
    state = torch.load(weights, weights_only=True)
    assert load_imagenet(network, recipe.network.architecture, weights) == "vgg19_bn.pth"
    torch.testing.assert_close(network.features[0].weight, state["features.0.weight"])
    seed = RECIPES["seed"]
    assert "hidden layers start at random" in load_imagenet(
        SliceNetwork(seed.network), seed.network.architecture, weights
    )


def test_weights_of_another_architecture_are_refused(weights: Path, recipe: Recipe) -> None:
    other = recipe.override(architecture="vgg16_bn")
    with pytest.raises(TrainingError, match=r"vgg19_bn\.pth: not the weights of vgg16_bn"):
        load_imagenet(SliceNetwork(other.network), other.network.architecture, weights)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, recipe: Recipe, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"weights\.pth: not a PyTorch state dict"):
        load_imagenet(SliceNetwork(recipe.network), recipe.network.architecture, path)


def test_a_missing_weights_file_is_named(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match=r"gone\.pth: can't read the weights: No such file"):
        load_imagenet(SliceNetwork(recipe.network), recipe.network.architecture, tmp_path / "gone.pth")


def test_offline_without_a_file_the_error_says_what_to_pass(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(TrainingError, match=r"can't be downloaded.*pass --weights FILE.*vgg19_bn"):
        load_imagenet(SliceNetwork(recipe.network), recipe.network.architecture, None)
