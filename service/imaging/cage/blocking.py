"""The cage for programs without an event loop: one file at a time."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

from service.errors import ServiceError
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.pool import USUAL_LIMITS, Cage, CageLimits, Decoded
from service.imaging.decode import DecodeLimits, Description
from service.imaging.series.files import ReadOptions, StudySlice
from service.imaging.window import LUNG, Window

T = TypeVar("T")


class BlockingCage:
    """Decodes files in a worker process that starts with the first one; methods as in `Cage`.

    Not for a thread that runs an event loop.
    """

    def __init__(self, limits: CageLimits | None = None) -> None:
        self._server = ForkServer()
        self._cage = Cage(self._server, limits)
        self._runner = asyncio.Runner()

    def decode(
        self,
        data: bytes,
        limits: DecodeLimits = USUAL_LIMITS,
        window: Window = LUNG,
        input_size: int | None = None,
    ) -> Decoded:
        """See `Cage.decode`."""
        return self._runner.run(self._cage.decode(data, limits, window, input_size))

    def decode_frames(self, data: bytes, window: Window = LUNG, name: str = "") -> Iterator[Decoded | ServiceError]:
        """See `Cage.decode_frames`."""
        return self._iterate(self._cage.decode_frames(data, USUAL_LIMITS, window, name=name))

    def study_slices(self, data: bytes, name: str, options: ReadOptions) -> Iterator[StudySlice | ServiceError]:
        """See `Cage.study_slices`."""
        return self._iterate(self._cage.study_slices(data, name, options))

    def describe(self, data: bytes) -> Description:
        """See `Cage.describe`."""
        return self._runner.run(self._cage.describe(data))

    def close(self) -> None:
        """End the worker."""
        self._cage.close()
        self._runner.close()
        self._server.close()

    def _iterate(self, items: AsyncGenerator[T]) -> Iterator[T]:
        async def following() -> list[T]:
            try:
                return [await anext(items)]
            except StopAsyncIteration:
                return []

        async def close() -> None:
            await items.aclose()

        try:
            while found := self._runner.run(following()):
                yield found[0]
        finally:
            self._runner.run(close())
