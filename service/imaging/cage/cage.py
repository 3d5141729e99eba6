"""The cage: worker processes that decode, each of which can be ended at any moment."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Self

from service.errors import OverloadedError, ServiceError
from service.imaging.cage.ending import Ending
from service.imaging.cage.failures import (
    FileRefusedError,
    Retry,
    WorkerEndedError,
    refusal,
    refuse_if_memory,
    unpack_error,
)
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.lane import Lane
from service.imaging.cage.limits import CageLimits, WorkerLimits, lane_limits
from service.imaging.cage.messages import Head
from service.imaging.cage.one_slice import Decoded, slice_order, unpack_decoded, unpack_input
from service.imaging.cage.study import study_order, unpack_slice
from service.imaging.cage.worker_process import WorkerProcess
from service.imaging.decode import DecodeLimits, Slice
from service.imaging.series.files import ReadOptions, StudySlice, refuse_other_file

_RETRY_SECONDS: Final = 1.0

USUAL_LIMITS: Final = DecodeLimits()


class Cage:
    """Decodes files in worker processes, within limits; a context manager. Use it from one event loop.

    Every file starts in the quickest lane. One that needs more time is ended there and decoded again in the next one,
    so that files that take seconds never keep usual slices waiting. One that may need more memory is decoded again in
    the last one, so that few workers have much memory at a time.

    Args:
        server: forks the workers; the caller closes it.
        limits: of one slice.
        processes: number of workers in the quickest lane; each other lane has half as many as the one before.
        count: called with each ending of a worker before it was done.
    """

    def __init__(
        self,
        server: ForkServer,
        limits: CageLimits | None = None,
        processes: int = 1,
        count: Callable[[Ending], object] = lambda _: None,
    ) -> None:
        lanes = lane_limits(limits or CageLimits())
        self._server = server
        self._lanes = [Lane(server, lane, max(1, processes >> number), count) for number, lane in enumerate(lanes)]
        self._count = count
        self._recovery: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_healthy(self) -> bool:
        """Whether workers can be started; if not, starting is retried every second."""
        if not self._server.is_running:
            self._recover()
        return self._recovery is None

    async def start(self) -> None:
        """Start the fork server and the workers of the quickest lane.

        Raises:
            OSError: they can't be started.
        """
        self._server.start()
        await self._lanes[0].start()

    def close(self) -> None:
        """End the idle workers; those that decode end with their request, or with the fork server."""
        if self._recovery is not None:
            self._recovery.cancel()
        for lane in self._lanes:
            lane.end()

    async def decode(self, data: bytes, limits: DecodeLimits = USUAL_LIMITS, input_size: int | None = None) -> Decoded:
        """Decode a file with one slice, see `service.imaging.decode.decode`.

        Args:
            data: a whole file.
            limits: as there.
            input_size: side of the network's input in pixels; None: none is made.

        Raises:
            ServiceError: as there; `limit_exceeded` names a limit of the cage, `out_of_memory` is the machine's lack.
        """
        order = slice_order(limits, input_size, with_slice=True)
        head, payload = await self._frame(order, data, limits.max_pixels + (input_size or 0) ** 2)
        return unpack_decoded(head, payload, input_size)

    async def network_input(self, data: bytes, input_size: int, limits: DecodeLimits = USUAL_LIMITS) -> Slice:
        """Decode a file like `decode`; return the network's input alone, uint8 (1, S, S).

        The slice itself, which has many more bytes, stays in the worker.
        """
        order = slice_order(limits, input_size, with_slice=False)
        _, payload = await self._frame(order, data, input_size**2)
        return unpack_input(payload, input_size)

    async def study_slices(
        self, data: bytes, name: str, options: ReadOptions
    ) -> AsyncGenerator[StudySlice | ServiceError]:
        """Yield the slices of one file of a study, see `service.imaging.series.files.study_slices`.

        Take them to the end: a worker that is left before is ended.

        Raises:
            ServiceError: as there, and as `decode`.
        """
        refuse_other_file(data, name)
        order, header = study_order(name, options), b""
        max_bytes = options.limits.max_pixels + options.input_size**2 + (len(data) if options.keep_headers else 0)
        async with aclosing(self._frames(order, data, max_bytes)) as frames:
            async for head, payload in frames:
                if "error" in head:
                    yield unpack_error(head)
                else:
                    slice_, header = unpack_slice(head, payload, options.input_size, header)
                    yield slice_

    async def _frame(self, order: Head, data: bytes, max_bytes: int) -> tuple[Head, bytes]:
        (frame,) = [frame async for frame in self._frames(order, data, max_bytes)]
        return frame

    async def _frames(self, order: Head, data: bytes, max_bytes: int) -> AsyncGenerator[tuple[Head, bytes]]:
        """Yield the frames of a file, each from the first lane that suffices for it."""
        done, lanes = 0, self._lanes
        while True:
            lane, *later = lanes
            try:
                async with aclosing(lane.run(order | {"start": done}, data, max_bytes)) as frames:
                    async for head, payload in frames:
                        if later:
                            refuse_if_memory(head)
                        done += 1
                        yield head, payload
            except (FileRefusedError, WorkerEndedError) as error:
                lanes = {Retry.NEXT_LANE: later, Retry.LAST_LANE: later[-1:], Retry.NO_LANE: []}[error.retry]
                if not lanes:
                    raise self._service_error(error, lane.limits) from None
            except OSError as error:
                self._recover()
                raise OverloadedError("No decoder can be started now; try again.", retry_after_seconds=1) from error
            else:
                return

    def _service_error(self, error: FileRefusedError | WorkerEndedError, limits: WorkerLimits) -> ServiceError:
        """Build the error of a file that no lane decodes, and count the ending of its worker."""
        if isinstance(error, FileRefusedError):
            return unpack_error(error.head)
        self._count(error.ending)
        return refusal(error.ending, limits)

    def _recover(self) -> None:
        if self._recovery is None:
            self._recovery = asyncio.create_task(self._try_until_started(), name="recover decoders")

    async def _try_until_started(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            try:
                worker = await WorkerProcess.start(self._server, self._lanes[0].limits)
            except OSError:
                continue
            worker.end()
            self._recovery = None
            return
