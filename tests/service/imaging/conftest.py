from collections.abc import Iterator
from contextlib import closing

import pytest

from service.imaging.cage.blocking import BlockingCage


@pytest.fixture(scope="module")
def cage() -> Iterator[BlockingCage]:
    with closing(BlockingCage()) as cage:
        yield cage
