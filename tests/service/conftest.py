"""Fixtures of the service's tests."""

from pathlib import Path

import pytest

from tests.tiny import write_models


@pytest.fixture
def anyio_backend() -> str:
    """The service is written for asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and its manifest."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder
