"""Fixtures for every test."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
"""Where the team keeps data beside its checkouts; nothing of it is in the repository."""


@pytest.fixture(scope="session")
def covid_ct_root() -> Path:
    """The real data set, for the few tests that need it."""
    root = SHARED / "covid-ct"
    if not root.is_dir():
        pytest.skip(f"the COVID-CT data set is not at {root}")
    return root
