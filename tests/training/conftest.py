"""A small data set and random weights in torchvision's layout, made once a session."""

from pathlib import Path

import pytest
import torch

from tests.training.data_set import small_files, small_lists, write_data_set
from tests.training.random_weights import write_random_weights
from training.config import RECIPES, Recipe
from training.data import CovidCt, read_covid_ct
from training.machine import Machine

INPUT_SIZE = 32


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COVID-CT's layout with 8 + 8 training, 4 + 4 validation and 4 + 4 test slices, zipped."""
    lists = small_lists({"train": 8, "val": 4, "test": 4})
    return write_data_set(tmp_path_factory.mktemp("data") / "covid-ct", lists, small_files(lists))


@pytest.fixture(scope="session")
def data(data_root: Path) -> CovidCt:
    """The same, read."""
    return read_covid_ct(data_root, counts=None)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """`best`, for slices small enough to train on in a test."""
    small = {"input_size": INPUT_SIZE, "resize": 40, "components": 8, "probe_views": 2, "epochs": 3, "batch_size": 8}
    return RECIPES["best"].override(layers="4_2,5_2", **small)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """VGG-19-BN's convolutions with random weights, as a file in torchvision's layout."""
    return write_random_weights(tmp_path_factory.mktemp("weights") / "vgg19_bn.pth", recipe)


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The processor, in fp32."""
    return Machine(torch.device("cpu"), autocast_dtype=None, workers=0)
