"""A small data set and random weights in torchvision's layout, made once a session."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.covid_ct import small_files, small_lists, write_data_set
from tests.support.patients_table import write_patients
from tests.support.random_weights import write_random_weights
from training.data.covid_ct import CovidCt, Split, read_covid_ct
from training.data.folds import FoldPlan
from training.data.patients import read_patients
from training.learning.fit import FitSettings
from training.recipe import RECIPES, FineTuningSettings, Recipe
from training.release.report import Report
from training.release.train import TrainingJob, train
from training.run.machine import Machine

INPUT_SIZE = 32


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: for networks this small, several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
        flipped = (replace(each, label=1 - each.label) if i % 5 == 0 else each for i, each in enumerate(split.slices))
        return Split(split.name, tuple(flipped))

    return data._replace(train=wrong(data.train), val=wrong(data.val))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """A small `best`: few layers and small slices, fitted to train alone, with fine-tuning."""
    small = RECIPES["best"].override(
        layers="3_2,4_1", components=8, input_size=INPUT_SIZE, magnify=1, resize=40, group_by="patient"
    )
    return small.override(fit_on="train", fine_tuning="true", epochs=3, batch_size=8)


@pytest.fixture(scope="session")
def tuning(recipe: Recipe) -> FineTuningSettings:
    """Its settings of fine-tuning."""
    assert recipe.fine_tuning is not None
    return recipe.fine_tuning


@pytest.fixture(scope="session")
def refit(recipe: Recipe) -> Recipe:
    """The same with the probe of `best`, which is fitted to train and validation, and without fine-tuning."""
    return recipe.override(fine_tuning="false", fit_on="train+val")


@pytest.fixture(scope="session")
def patients(data: CovidCt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of patients for train and validation, two slices each."""
    return write_patients(tmp_path_factory.mktemp("patients") / "patients.csv", data.train_and_val())


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG-19-BN's convolutions with random weights, as a file in torchvision's layout."""
    return write_random_weights(tmp_path_factory.mktemp("weights") / "vgg19_bn.pth")


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The processor, in fp32."""
    return Machine(torch.device("cpu"), autocast_dtype=None, workers=0)


@pytest.fixture
def split(data: CovidCt) -> Split:
    """Train and validation as one."""
    return data.train_and_val()


@pytest.fixture
def plan(split: Split, patients: Path) -> FoldPlan:
    """Two folds that keep its patients together, assigned once."""
    return FoldPlan(read_patients(patients, split), folds=2, repeats=1)


@pytest.fixture(scope="session")
def job(recipe: Recipe, machine: Machine, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A release with a probe and one epoch; tests leave its folders as they are."""
    root = tmp_path_factory.mktemp("job")
    return TrainingJob(FitSettings(recipe.override(epochs=1), machine, weights, root / "run"), root / "models", "1.2.3")


@pytest.fixture(scope="session")
def report(job: TrainingJob, data: CovidCt) -> Report:
    """Its report."""
    return train(job, data)


@pytest.fixture(scope="session")
def probe_job(job: TrainingJob, tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """The same without fine-tuning, in a folder with curves of an earlier run."""
    root = tmp_path_factory.mktemp("probe-job")
    (root / "models" / "figures").mkdir(parents=True)
    (root / "models" / "figures" / "curves.png").write_bytes(b"of an earlier run")
    settings = replace(job.settings, recipe=job.settings.recipe.override(fine_tuning="false"), run_folder=root / "run")
    return replace(job, settings=settings, models_folder=root / "models")


@pytest.fixture(scope="session")
def probe_report(probe_job: TrainingJob, data: CovidCt) -> Report:
    """Its report."""
    return train(probe_job, data)
