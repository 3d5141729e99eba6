"""Fixtures for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.networks.tiny import TinyClassifier, classifier_card, write_models
from tests.support.processes.server import Server, running

SHARED = Path(__file__).parents[2] / "shared"
"""Where the team keeps data beside its checkouts; nothing of it is in the repository."""


SLOW = [Path(__file__).parent / name for name in ("process", "training/release", "training", "browser", "prometheus")]
"""Folders whose files take longest, from seconds to half a minute."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: a zip holds the time, so that the processes of a run would collect other tests."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first: processes take files in this order, and none should begin a slow one at the end."""
    items.sort(key=_place)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")


def _place(item: pytest.Item) -> int:
    return next((place for place, folder in enumerate(SLOW) if item.path.is_relative_to(folder)), len(SLOW))


@pytest.fixture(scope="session")
def covid_ct_root() -> Path:
    """The real data set, for the few tests that need it."""
    root = SHARED / "covid-ct"
    if not root.is_dir():
        pytest.skip(f"the COVID-CT data set is not at {root}")
    return root


@pytest.fixture
def anyio_backend() -> str:
    """Service and client are written for asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and its manifest, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    """One real service for all tests that neither change its settings nor end it; it answers whatever it is shown."""
    with running(models, out_of_distribution="flag", log_level="WARNING") as started:
        yield started


@pytest.fixture(scope="session")
def classifier_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a network that does not find lungs and has no checks."""
    folder = tmp_path_factory.mktemp("classifier")
    write_models(folder, classifier_card(), TinyClassifier())
    return folder
