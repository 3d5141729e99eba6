"""Fixtures for the tests of the model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from service.model.file import Network, load_model, model_bytes
from tests.service.model.imitated_cuda import imitated_cuda
from tests.support.networks.tiny import tiny_card

__all__ = ["imitated_cuda"]


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[[torch.nn.Module], Network]:
    """A network as the service loads it from a model file."""

    def load(module: torch.nn.Module) -> Network:
        path = tmp_path / "scripted.pt"
        path.write_bytes(model_bytes(module.eval(), tiny_card()))
        return load_model(path, torch.device("cpu"), "fp32").network

    return load
