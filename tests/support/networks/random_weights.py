"""VGG's convolutions with random weights, as a file in torchvision's layout."""

from pathlib import Path

import torch

from training.network.vgg import empty_vgg, initialise_weights
from training.report_recipe import Architecture


def write_random_weights(path: Path, architecture: Architecture = "vgg19_bn") -> Path:
    """The same at every call; returns `path`."""
    torch.manual_seed(0)
    state = initialise_weights(empty_vgg(architecture)[0]).state_dict()
    torch.save({f"features.{name}": value for name, value in state.items()}, path)
    return path
