"""Fixtures of the client's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, running


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    """The real service, once for all."""
    with running(models) as started:
        yield started
