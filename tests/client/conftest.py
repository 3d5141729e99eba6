"""Fixtures of the client's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import Server, running
from tests.tiny import write_models


@pytest.fixture
def anyio_backend() -> str:
    """The client is written for asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and its manifest."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    """The real service, once for all."""
    with running(models) as started:
        yield started
