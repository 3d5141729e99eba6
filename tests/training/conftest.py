"""A small data set and random weights in torchvision's layout, made once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.model.hardware import one_thread
from tests.support.networks.thin_vgg import thin_vgg, write_thin_weights
from tests.support.sources.covid_ct import small_files, small_lists, write_data_set
from training.data.covid_ct import CovidCt, read_covid_ct
from training.network.weights import write_random_weights
from training.report.run import ReportJob, ReportRunRecord, run_report
from training.report_recipe import ReportRecipe
from training.run.machine import Machine

INPUT_SIZE = 32


@pytest.fixture(scope="package", autouse=True)
def computing_in_one_thread() -> Iterator[None]:
    """Compute with one thread: for networks this small, several threads mostly wait for each other."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COVID-CT's layout with 8 + 8 training, 4 + 4 validation and 4 + 4 test slices, zipped."""
    lists = small_lists({"train": 8, "val": 4, "test": 4})
    return write_data_set(tmp_path_factory.mktemp("data") / "covid-ct", lists, small_files(lists))


@pytest.fixture(scope="session")
def data(data_root: Path) -> CovidCt:
    """The same, read."""
    return read_covid_ct(data_root, "any")


@pytest.fixture(scope="session")
def recipe() -> ReportRecipe:
    """The report's recipe on small slices for six epochs."""
    return ReportRecipe(input_size=INPUT_SIZE, resize=40, epochs=6, batch_size=8)


@pytest.fixture
def thin() -> Iterator[None]:
    """Build thin VGGs."""
    with thin_vgg():
        yield


@pytest.fixture(scope="session")
def thin_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a thin VGG-19-BN, with its hidden layers."""
    return write_thin_weights(tmp_path_factory.mktemp("weights") / "vgg19_bn.pth")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG-19-BN's convolutions with random weights, as a file in torchvision's layout."""
    return write_random_weights(tmp_path_factory.mktemp("weights") / "vgg19_bn.pth")


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The processor, in fp32."""
    return Machine(torch.device("cpu"), autocast_dtype=None, workers=0)


@pytest.fixture(scope="session")
def job(
    recipe: ReportRecipe, machine: Machine, thin_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> ReportJob:
    """A run of the report with a thin network; tests leave its folder as it is."""
    return ReportJob(recipe, machine, thin_weights, tmp_path_factory.mktemp("job") / "run", "1.2.3")


@pytest.fixture(scope="session")
def report(job: ReportJob, data: CovidCt) -> ReportRunRecord:
    """Its record."""
    with thin_vgg():
        return run_report(job, data)
