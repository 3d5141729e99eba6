"""Worker processes that decode, each of which can be ended at any moment."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from typing import Final, Self

import numpy as np

from service.errors import OverloadedError, ServiceError
from service.imaging.cage.ending import Ending
from service.imaging.cage.failures import (
    FileRefusedError,
    WorkerEndedError,
    crashed,
    refusal,
    refuse_if_memory,
    unpack_error,
)
from service.imaging.cage.fork_server import ForkServer, WorkerLimits
from service.imaging.cage.lane import Lane
from service.imaging.cage.messages import Head
from service.imaging.cage.study import study_order, unpack_slice
from service.imaging.cage.worker_process import WorkerProcess
from service.imaging.decode import DecodeLimits, Slice
from service.imaging.series.files import ReadOptions, StudySlice, refuse_other_file

SECONDS: Final = 10.0
"""Seconds of processor time for a slice: five times the slowest valid file, a JPEG 2000 of 4096 x 4096 pixels."""

MEMORY_BYTES: Final = 320 * 1024 * 1024
"""Memory for a slice; the largest valid file, a WebP of 4096 x 4096 pixels with transparency, needs 300 MiB."""

_EARLIER_LANES: Final = ((0.05, 3), (0.5, 6))
"""Lanes before the last one: seconds of processor time for a slice, and niceness. A usual slice of 512 x 512 pixels
takes a quarter of the first; a photograph fits into the second. All are nicer than the network, whose threads wait for
each other."""

_EARLIER_BYTES: Final = 48 * 1024 * 1024
"""Memory for a slice in these lanes; DICOM, PNG and JPEG of 2048 x 2048 pixels were decoded with half of it."""

_LAST_NICENESS: Final = 10

_RETRY_SECONDS: Final = 1.0

USUAL_LIMITS: Final = DecodeLimits()


@dataclass(frozen=True, slots=True)
class CageLimits:
    """Limits of decoding one slice, enforced by the kernel.

    Attributes:
        seconds: processor time, so that neither load nor a pause of the machine counts.
        memory_bytes: address space beyond that of an idle worker.
    """

    seconds: float = SECONDS
    memory_bytes: int = MEMORY_BYTES


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded slice.

    Attributes:
        slice_: uint8 (1, H, W).
        network_input: the same, resized to uint8 (1, S, S) if an input size was asked for.
    """

    slice_: Slice
    network_input: Slice


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
        self._server = server
        limits = limits or CageLimits()
        memory_bytes = min(limits.memory_bytes, _EARLIER_BYTES)
        lanes = [
            WorkerLimits(seconds, memory_bytes, niceness)
            for seconds, niceness in _EARLIER_LANES
            if seconds < limits.seconds
        ]
        lanes.append(WorkerLimits(limits.seconds, limits.memory_bytes, _LAST_NICENESS))
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
        order = _order("slice", limits, input_size)
        head, payload = await self._frame(order, data, limits, input_size)
        return _unpack(head, payload, input_size)

    async def network_input(self, data: bytes, input_size: int, limits: DecodeLimits = USUAL_LIMITS) -> Slice:
        """Decode a file like `decode`; return the network's input alone, uint8 (1, S, S).

        The slice itself, which has many more bytes, stays in the worker.
        """
        order = _order("input", limits, input_size)
        _, payload = await self._frame(order, data, limits, input_size)
        try:
            return _input_of(payload, input_size)
        except ValueError:
            raise crashed() from None

    async def study_slices(
        self, data: bytes, name: str, options: ReadOptions
    ) -> AsyncGenerator[StudySlice | ServiceError]:
        """Yield the slices of one file of a study, see `service.imaging.series.files.study_slices`.

        Raises:
            ServiceError: as there, and as `decode`.
        """
        refuse_other_file(data, name)
        order, header = study_order(name, options), b""
        more_bytes = len(data) if options.keep_headers else 0
        async with aclosing(self._frames(order, data, options.limits, options.input_size, more_bytes)) as frames:
            async for head, payload in frames:
                if "error" in head:
                    yield unpack_error(head)
                else:
                    slice_, header = unpack_slice(head, payload, options.input_size, header)
                    yield slice_

    async def _frame(
        self, order: Head, data: bytes, limits: DecodeLimits, input_size: int | None
    ) -> tuple[Head, bytes]:
        (frame,) = [frame async for frame in self._frames(order, data, limits, input_size)]
        return frame

    async def _frames(
        self, order: Head, data: bytes, limits: DecodeLimits, input_size: int | None = None, more_bytes: int = 0
    ) -> AsyncGenerator[tuple[Head, bytes]]:
        """Yield the frames of a file, each from the first lane that suffices for it."""
        done, lanes = 0, self._lanes
        max_bytes = limits.max_pixels + (input_size or 0) ** 2 + more_bytes
        while lanes:
            is_last = len(lanes) == 1
            try:
                with self._recovering():
                    async with aclosing(lanes[0].run(order | {"start": done}, data, max_bytes)) as frames:
                        async for head, payload in frames:
                            if not is_last:
                                refuse_if_memory(head)
                            done += 1
                            yield head, payload
            except (FileRefusedError, WorkerEndedError) as error:
                if is_last or not error.may_succeed_again:
                    raise self._service_error(error, lanes[0].limits) from None
                lanes = lanes[-1:] if error.needs_memory else lanes[1:]
            else:
                return

    def _service_error(self, error: FileRefusedError | WorkerEndedError, limits: WorkerLimits) -> ServiceError:
        if isinstance(error, FileRefusedError):
            return unpack_error(error.head)
        self._count(error.ending)
        return refusal(error.ending, limits)

    @contextmanager
    def _recovering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._recover()
            raise OverloadedError("No decoder can be started now; try again.", retry_after_seconds=1) from error

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


def _order(kind: str, limits: DecodeLimits, input_size: int | None) -> Head:
    return {"kind": kind, "limits": asdict(limits), "input_size": input_size}


def _unpack(head: Head, payload: bytes, input_size: int | None) -> Decoded:
    """Unpack a slice, without trusting the worker.

    Raises:
        UnusableImageError: it does not match.
    """
    try:
        height, width = (int(side) for side in head["shape"])
        area = height * width
        slice_ = np.frombuffer(payload, np.uint8, area).reshape(1, height, width)
        if input_size is None:
            return Decoded(slice_, slice_)
        return Decoded(slice_, _input_of(payload, input_size, area))
    except (KeyError, TypeError, ValueError):
        raise crashed() from None


def _input_of(payload: bytes, size: int, start: int = 0) -> Slice:
    """Copy the network's input, so that torch can share its memory; raises ValueError if the payload is too short."""
    return np.frombuffer(payload, np.uint8, size**2, start).reshape(1, size, size).copy()
