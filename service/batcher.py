"""An asyncio micro-batcher: items that arrive while a batch is running go together into the next one.

It adds no waiting of its own: an item that finds nothing running starts at once, alone.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class QueueFullError(Exception):
    """As many items wait as may."""


class ClosedError(Exception):
    """The batcher takes no more items, or was closed before this one's turn came."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """One item's result.

    Attributes:
        queue_seconds: how long the item waited for its batch to start.
        run_seconds: how long its batch ran.
        batch_size: items in that batch.
    """

    result: R
    queue_seconds: float
    run_seconds: float
    batch_size: int


@dataclass(slots=True, eq=False)
class _Entry(Generic[T, R]):
    item: T
    future: "asyncio.Future[Answer[R]]"
    queued_at: float = field(default_factory=time.perf_counter)


class Batcher(Generic[T, R]):
    """Collects items into batches and runs one batch at a time.

    Args:
        run: takes the items of a batch, returns exactly one result or exception an item, in order. If it raises,
            every item of that batch gets the exception, and the next batch runs all the same.
        max_size: most items in a batch.
        max_waiting: most items that wait.
    """

    def __init__(
        self, run: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], *, max_size: int, max_waiting: int
    ) -> None:
        self._run = run
        self._max_size = max_size
        self.max_waiting = max_waiting
        self._waiting: deque[_Entry[T, R]] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._batch: list[_Entry[T, R]] = []
        self._batch_started: float | None = None
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the worker; call it from a running event loop."""
        self._worker = asyncio.create_task(self._work(), name="batcher")

    def waiting(self) -> int:
        """Items that wait now."""
        return len(self._waiting)

    async def submit(self, item: T) -> Answer[R]:
        """Wait for the item's result. A caller that is cancelled gives up its place and disturbs nobody.

        Raises:
            QueueFullError: as many items wait as may.
            ClosedError: the batcher is closed.
        """
        if self._closed or not self.alive:
            raise ClosedError
        if len(self._waiting) >= self.max_waiting:
            raise QueueFullError
        entry: _Entry[T, R] = _Entry(item, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._arrived.set()
        try:
            return await entry.future
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # its batch has started already
                self._waiting.remove(entry)
            raise

    @property
    def alive(self) -> bool:
        """Whether the worker takes batches: it was started and has not ended."""
        return self._worker is not None and not self._worker.done()

    @property
    def running_seconds(self) -> float:
        """How long the present batch has been running; 0 between batches."""
        return 0.0 if self._batch_started is None else time.perf_counter() - self._batch_started

    async def close(self, timeout_seconds: float | None = None) -> None:
        """Take no more items, run those that wait, then stop; what is left at the timeout gets `ClosedError`."""
        self._closed = True
        self._arrived.set()
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=timeout_seconds)
            self._worker.cancel()
            await asyncio.wait({self._worker})
        for entry in (*self._batch, *self._waiting):
            if not entry.future.done():
                entry.future.set_exception(ClosedError())
        self._waiting.clear()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._waiting:
                if self._closed:
                    return
                self._arrived.clear()
                continue
            await self._run_batch([self._waiting.popleft() for _ in range(min(self._max_size, len(self._waiting)))])

    async def _run_batch(self, batch: list[_Entry[T, R]]) -> None:
        started = time.perf_counter()
        self._batch, self._batch_started = batch, started
        results: Sequence[R | Exception]
        try:
            results = await self._run([entry.item for entry in batch])
            if len(results) != len(batch):  # nobody could tell whose is missing, so nobody gets one
                raise RuntimeError(f"{len(results)} results came back for a batch of {len(batch)}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - it belongs to the callers of this batch; the worker must live on
            results = [error] * len(batch)
        seconds = time.perf_counter() - started
        for entry, result in zip(batch, results, strict=True):
            if entry.future.done():  # its caller has gone
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(Answer(result, started - entry.queued_at, seconds, len(batch)))
        self._batch, self._batch_started = [], None
