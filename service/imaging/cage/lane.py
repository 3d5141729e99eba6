"""Workers with the same limits."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from service.imaging.cage.ending import Ending
from service.imaging.cage.failures import FileRefusedError
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.limits import WorkerLimits
from service.imaging.cage.messages import Head
from service.imaging.cage.worker_process import WorkerProcess


class Lane:
    """Workers with the same limits, started when needed; each decodes one file at a time."""

    def __init__(
        self, server: ForkServer, limits: WorkerLimits, number: int, count: Callable[[Ending], object]
    ) -> None:
        self.limits = limits
        self._number = number
        self._count = count
        self._server = server
        self._idle: list[WorkerProcess] = []
        self._room = asyncio.Semaphore(number)

    async def start(self) -> None:
        """Start all workers."""
        self._idle += await asyncio.gather(
            *(WorkerProcess.start(self._server, self.limits) for _ in range(self._number))
        )

    async def run(self, order: Head, data: bytes, max_bytes: int) -> AsyncGenerator[tuple[Head, bytes]]:
        """Yield the frames that a worker returns, each of at most `max_bytes`; an unfinished worker is ended.

        Raises:
            FileRefusedError: the file is refused; the worker continues.
            WorkerEndedError: the worker ended before it was done.
            OSError: no worker can be started.
        """
        async with self._room:
            worker = await self._take()
            try:
                async with aclosing(worker.results(order, data, max_bytes)) as frames:
                    async for frame in frames:
                        yield frame
            except FileRefusedError:
                raise
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError):
                    self._count(Ending.CANCELLED)
                worker.end()
                raise
            finally:
                if worker.is_usable:
                    self._idle.append(worker)

    def end(self) -> None:
        """End the idle workers."""
        while self._idle:
            self._idle.pop().end()

    async def _take(self) -> WorkerProcess:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_usable:
                return worker
            worker.end()
        return await WorkerProcess.start(self._server, self.limits)
