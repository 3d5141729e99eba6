"""A small data set and random weights in torchvision's layout, made once a session."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.covid_ct import small_files, small_lists, write_data_set
from tests.support.patients_table import write_patients
from tests.support.random_weights import write_random_weights
from training.data.covid_ct import CovidCt, Split, read_covid_ct
from training.data.folds import Folding
from training.data.patients import read_patients
from training.recipe import RECIPES, Recipe
from training.run.machine import Machine

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
def mislabelled(data: CovidCt) -> CovidCt:
    """The same with every fifth label of train and validation wrong: a probe answers better where it has seen them."""

    def wrong(split: Split) -> Split:
        flipped = (replace(scan, label=1 - scan.label) if i % 5 == 0 else scan for i, scan in enumerate(split.scans))
        return Split(split.name, tuple(flipped))

    return data._replace(train=wrong(data.train), val=wrong(data.val))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """`best`, for slices small enough to train on in a test, fitted to train alone so that it may have epochs."""
    small = {"input_size": INPUT_SIZE, "resize": 40, "components": 8, "probe_views": 2, "epochs": 3, "batch_size": 8}
    return RECIPES["best"].override(layers="4_2,5_2", fit_on="train", together="patient", **small)


@pytest.fixture(scope="session")
def refit(recipe: Recipe) -> Recipe:
    """The same as `best` has it: a probe that is fitted to train and validation, and no epochs."""
    return recipe.override(epochs=0, fit_on="train+val")


@pytest.fixture(scope="session")
def patients(data: CovidCt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of patients for train and validation, two slices each."""
    return write_patients(tmp_path_factory.mktemp("patients") / "patients.csv", data.train_and_val())


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """VGG-19-BN's convolutions with random weights, as a file in torchvision's layout."""
    return write_random_weights(tmp_path_factory.mktemp("weights") / "vgg19_bn.pth", recipe)


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The processor, in fp32."""
    return Machine(torch.device("cpu"), autocast_dtype=None, workers=0)


@pytest.fixture
def split(data: CovidCt) -> Split:
    """Train and validation as one."""
    return data.train_and_val()


@pytest.fixture
def folding(split: Split, patients: Path) -> Folding:
    """Its slices by patient, for two folds, dealt once."""
    return Folding(read_patients(patients, split), folds=2, repeats=1)
