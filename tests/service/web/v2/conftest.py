from pathlib import Path

import pytest

from tests.support.networks.tiny import write_models


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Its own: the tests of reloading give the shared folder's model another version."""
    write_models(tmp_path)
    return tmp_path
