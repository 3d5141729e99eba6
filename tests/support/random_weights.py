"""VGG-19-BN's convolutions with random weights, as a file in torchvision's layout."""

from pathlib import Path
from typing import Literal

import torch

from training.network.slice_network import SliceNetwork
from training.recipe import NetworkSettings


def write_random_weights(path: Path, architecture: Literal["vgg19_bn", "vgg16_bn"] = "vgg19_bn") -> Path:
    """The same at every call; returns `path`."""
    torch.manual_seed(0)
    state = SliceNetwork(NetworkSettings(head="pooled", architecture=architecture)).state_dict()
    torch.save({name: value for name, value in state.items() if name.startswith("features.")}, path)
    return path
