"""One worker, as used by the service."""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from typing import Final

from service.imaging.cage.ending import Ending
from service.imaging.cage.failures import FileRefusedError, WorkerEndedError
from service.imaging.cage.fork_server import STATUS, ForkServer
from service.imaging.cage.limits import WorkerLimits
from service.imaging.cage.messages import END, LENGTHS, MAX_HEAD_BYTES, MEMORY, NO_MEMORY, Head, start

_START_SECONDS: Final = 20.0
"""Seconds for a worker to become ready; importing the decoders takes half a second."""

_WALL_SECONDS: Final = 10.0
_WALL_FACTOR: Final = 10
"""Maximum wall time of a worker, and in multiples of its processor time: it shares the machine."""

_BUFFER_BYTES: Final = 1024 * 1024


class WorkerProcess:
    """A worker and its socket; use `start`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: WorkerLimits) -> None:
        self._reader = reader
        self._writer = writer
        self._wall_seconds = _WALL_SECONDS + _WALL_FACTOR * limits.seconds

    @classmethod
    async def start(cls, server: ForkServer, limits: WorkerLimits) -> "WorkerProcess":
        """Start a worker and wait until it is ready.

        Raises:
            OSError: it can't be started.
        """
        connection = server.fork(limits)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_BUFFER_BYTES)
        except BaseException:
            connection.close()
            raise
        worker = cls(reader, writer, limits)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await worker._read(0)
        except BaseException as error:
            worker.end()
            if isinstance(error, WorkerEndedError | TimeoutError):
                raise ChildProcessError("a worker does not start") from error
            raise
        return worker

    @property
    def is_usable(self) -> bool:
        """Whether the worker is running."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    def end(self) -> None:
        """End the worker, even while it decodes."""
        self._writer.transport.abort()

    async def results(self, order: Head, data: bytes, max_bytes: int) -> AsyncGenerator[tuple[Head, bytes]]:
        """Send an order with a file; yield the frames of the response.

        Raises:
            FileRefusedError: no slice follows.
            WorkerEndedError: the worker ended, or sent more than `max_bytes` or a malformed frame.
        """
        self._writer.writelines((start(order, len(data)), data, END))
        while True:
            try:
                async with asyncio.timeout(self._wall_seconds):
                    head, payload = await self._read(max_bytes)
            except TimeoutError:
                raise WorkerEndedError(Ending.STUCK) from None
            if head.get("has_grown"):  # a new one is smaller
                self.end()
            if head.get("end"):
                return
            if head.get("error") in (MEMORY, NO_MEMORY):
                raise WorkerEndedError(Ending.MEMORY if head["error"] == MEMORY else Ending.NO_MEMORY)
            if head.get("final"):
                raise FileRefusedError(head)
            yield head, payload

    async def _read(self, max_bytes: int) -> tuple[Head, bytes]:
        """Read a frame of the worker, without trusting it: its codecs have read untrusted bytes."""
        reader = self._reader
        try:
            head_size, size = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
            if head_size > MAX_HEAD_BYTES or size > max_bytes:
                raise WorkerEndedError(Ending.CRASH)
            head = json.loads(await reader.readexactly(head_size))
            payload = await reader.readexactly(size)
            if await reader.readexactly(len(END)) != END or not isinstance(head, dict):
                raise WorkerEndedError(Ending.CRASH)
        except asyncio.IncompleteReadError as error:
            raise WorkerEndedError(_ending(error.partial)) from None
        except ConnectionError:
            raise WorkerEndedError(Ending.KILLED) from None
        except ValueError:
            raise WorkerEndedError(Ending.CRASH) from None
        return head, payload


def _ending(last: bytes) -> Ending:
    """Determine from a worker's exit status, its last bytes, why it ended."""
    if len(last) < STATUS.size:
        return Ending.KILLED
    (status,) = STATUS.unpack(last[-STATUS.size :])
    endings = {-signal.SIGPROF: Ending.TIME, -signal.SIGKILL: Ending.KILLED, -signal.SIGTERM: Ending.KILLED}
    return endings.get(status, Ending.CRASH)
