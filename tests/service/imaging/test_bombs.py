"""Small files that need much time or memory: refused, or ended by the cage."""

import pytest

from service.errors import ServiceError
from service.imaging.cage.cage import Cage
from service.imaging.cage.ending import Ending
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.limits import CageLimits
from tests.support.files.bombs import BOMBS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_decoded_or_refused_within_the_limits_of_the_cage(name: str) -> None:
    code, make = BOMBS[name]
    endings: list[Ending] = []
    limits = CageLimits(seconds=5, memory_bytes=300 * 1024**2)
    refusal = None
    with ForkServer() as server, Cage(server, limits, count=endings.append) as cage:
        try:
            await cage.decode(make())
        except ServiceError as error:
            refusal = error.code
    assert refusal == code
    assert set(endings) <= {Ending.TIME, Ending.MEMORY}, "no codec crashes"
