"""A network with random weights."""

import pytest
import torch

from tests.support.networks.thin_vgg import thin_vgg
from training.report.network import SliceNetwork


@pytest.fixture(scope="session")
def network() -> SliceNetwork:
    """A thin one in evaluation mode; tests leave it as it is."""
    torch.manual_seed(1)
    with thin_vgg():
        return SliceNetwork("vgg19_bn").eval()
