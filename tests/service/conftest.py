"""A models folder with a tiny network, and an application that serves it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.tiny import write_models


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that the service runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def settings(tiny_models: Path) -> Settings:
    """Small limits, so that tests can go beyond them."""
    return Settings(
        models_dir=tiny_models, device="cpu", precision="fp32", threads=1, max_body_bytes=200_000, max_pixels=250_000
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of a started application."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client
