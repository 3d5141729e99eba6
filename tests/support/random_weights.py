"""VGG-19-BN's convolutions with random weights, as a file in torchvision's layout."""

from pathlib import Path

import torch

from training.network.slice_network import SliceNetwork
from training.recipe import Recipe


def write_random_weights(path: Path, recipe: Recipe) -> Path:
    """The same at every call; returns `path`."""
    torch.manual_seed(0)
    state = SliceNetwork(recipe.override(layers=())).state_dict()
    torch.save({name: value for name, value in state.items() if name.startswith("features.")}, path)
    return path
