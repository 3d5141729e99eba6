"""A network with random weights."""

import pytest
import torch

from training.network.slice_network import SliceNetwork
from training.recipe import Recipe


@pytest.fixture(scope="session")
def network(recipe: Recipe) -> SliceNetwork:
    """In evaluation mode; tests leave it as it is."""
    torch.manual_seed(1)
    return SliceNetwork(recipe.network).eval()
