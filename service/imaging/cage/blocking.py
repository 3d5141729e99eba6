"""The cage for programs without an event loop: one file at a time."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Self

from service.errors import ServiceError
from service.imaging.cage.cage import USUAL_LIMITS, Cage
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.limits import CageLimits
from service.imaging.cage.one_slice import Decoded
from service.imaging.decode import DecodeLimits, Slice
from service.imaging.series.files import ReadOptions, StudySlice


class BlockingCage:
    """Decodes files in a worker process that starts with the first one; a context manager.

    Its methods are those of `Cage`. Not for a thread that runs an event loop.
    """

    def __init__(self, limits: CageLimits | None = None) -> None:
        self._server = ForkServer()
        self._cage = Cage(self._server, limits)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, data: bytes, limits: DecodeLimits = USUAL_LIMITS) -> Decoded:
        """Decode a file with one slice."""
        return self._runner.run(self._cage.decode(data, limits))

    def network_input(self, data: bytes, input_size: int) -> Slice:
        """Decode a file with one slice, and return the network's input alone."""
        return self._runner.run(self._cage.network_input(data, input_size))

    def study_slices(self, data: bytes, name: str, options: ReadOptions) -> Iterator[StudySlice | ServiceError]:
        """Yield the slices of one file of a study."""
        slices = self._cage.study_slices(data, name, options)
        try:
            while (slice_ := self._runner.run(_next(slices))) is not None:
                yield slice_
        finally:
            self._runner.run(_close(slices))

    def close(self) -> None:
        """End the worker."""
        self._cage.close()
        self._runner.close()
        self._server.close()


async def _next(slices: AsyncGenerator[StudySlice | ServiceError]) -> StudySlice | ServiceError | None:
    return await anext(slices, None)


async def _close(slices: AsyncGenerator[StudySlice | ServiceError]) -> None:
    await slices.aclose()
