from pathlib import Path

import pytest
import torch

from training.errors import TrainingError
from training.network.weights import write_random_weights
from training.report.network import SliceNetwork, load_imagenet

pytestmark = pytest.mark.usefixtures("thin")


def test_weights_of_the_features_alone_are_loaded_and_said_to_lack_the_classifier(tmp_path: Path) -> None:
    network = SliceNetwork("vgg19_bn")
    path = write_random_weights(tmp_path / "vgg19_bn.pth")
    state = torch.load(path, weights_only=True)
    source = load_imagenet(network, "vgg19_bn", path)
    assert source.startswith("vgg19_bn.pth; the classifier's hidden layers start at random")
    torch.testing.assert_close(network.features[0].weight, state["features.0.weight"])


def test_weights_of_the_hidden_layers_are_loaded_where_the_file_has_them(thin_weights: Path) -> None:
    network = SliceNetwork("vgg19_bn")
    state = torch.load(thin_weights, weights_only=True)
    assert load_imagenet(network, "vgg19_bn", thin_weights) == "vgg19_bn.pth"
    loaded = network.head.layers.state_dict()
    torch.testing.assert_close(loaded["3.weight"], state["classifier.3.weight"])
    assert loaded["6.weight"].shape[0] == 2, "the last layer has other outputs"


def test_weights_of_another_architecture_are_refused(thin_weights: Path) -> None:
    with pytest.raises(TrainingError, match=r"vgg19_bn\.pth: not the weights of vgg16_bn"):
        load_imagenet(SliceNetwork("vgg16_bn"), "vgg16_bn", thin_weights)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"weights\.pth: not a PyTorch state dict"):
        load_imagenet(SliceNetwork("vgg19_bn"), "vgg19_bn", path)


def test_offline_without_a_file_the_error_says_what_to_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(TrainingError, match=r"can't be downloaded.*pass --weights FILE.*vgg19_bn"):
        load_imagenet(SliceNetwork("vgg19_bn"), "vgg19_bn", None)
