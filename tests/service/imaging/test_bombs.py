"""Small files that need much: refused by what the decoding codec reads, within seconds and little memory."""

import pytest

from service.errors import ServiceError
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.pool import Cage, CageLimits
from tests.support.files.bombs import BOMBS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_refused_or_decoded_in_five_seconds_and_300_mebibytes(name: str) -> None:
    """In a cage, whose limits they would exceed: by processor time, so that a busy machine does not matter."""
    code, make = BOMBS[name]
    endings: list[object] = []
    limits = CageLimits(seconds=5, memory_bytes=300 * 1024**2)
    refusal = None
    with ForkServer() as server, Cage(server, limits, count=endings.append) as cage:
        try:
            await cage.decode(make())
        except ServiceError as error:
            refusal = error.code
    assert (refusal, endings) == (code, [])
