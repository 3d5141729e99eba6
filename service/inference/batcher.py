"""An asyncio micro-batcher: items that arrive while a batch runs go together into the next batch.

It adds no waiting time: if nothing runs, an item starts at once, alone, with the whole machine. Concurrent batches
share the machine.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class QueueFullError(Exception):
    """The queue is full."""


class ClosedError(Exception):
    """The batcher is closed, or was closed before the item ran."""


@dataclass(frozen=True, slots=True)
class BatchedResult(Generic[R]):
    """Result of one item.

    Attributes:
        queue_seconds: time from submission to the start of the batch.
        run_seconds: run time of its batch.
        batch_size: items in that batch.
    """

    result: R
    queue_seconds: float
    run_seconds: float
    batch_size: int


@dataclass(slots=True, eq=False)
class _Entry(Generic[T, R]):
    item: T
    future: "asyncio.Future[BatchedResult[R]]"
    queued_at: float


@dataclass(slots=True, eq=False)
class _Batch(Generic[T, R]):
    entries: list[_Entry[T, R]]
    concurrent_batches: int
    started_at: float


class Batcher(Generic[T, R]):
    """Collects items into batches and runs one or a few batches at a time.

    If requests arrive slightly slower than a batch takes, two batches can overlap permanently and each take twice as
    long. A lone item therefore waits if that finishes it sooner.

    Args:
        run: takes the items of a batch and the number of batches that share the machine; returns exactly one result or
            exception for each item, in order. If it raises, every item of this batch gets the exception, and the next
            batch still runs.
        max_size: maximum number of items in a batch.
        max_waiting: maximum number of waiting items.
        max_concurrent_batches: maximum number of batches that run at the same time.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T], int], Awaitable[Sequence[R | Exception]]],
        *,
        max_size: int,
        max_waiting: int,
        max_concurrent_batches: int = 1,
    ) -> None:
        self._run = run
        self._max_size = max_size
        self.max_waiting = max_waiting
        self._max_concurrent_batches = max_concurrent_batches
        self._waiting: deque[_Entry[T, R]] = deque()
        self._running: dict[asyncio.Task[None], _Batch[T, R]] = {}
        self._changed = asyncio.Event()
        self._alone_seconds = math.inf
        self._closed = False
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the worker; call it from a running event loop."""
        self._worker = asyncio.create_task(self._work(), name="batcher")

    def waiting(self) -> int:
        """Return the number of waiting items."""
        return len(self._waiting)

    async def submit(self, item: T) -> BatchedResult[R]:
        """Wait for the item's result. A cancelled caller leaves the queue; other items are not affected.

        Raises:
            QueueFullError: the queue is full.
            ClosedError: the batcher is closed.
        """
        if self._closed or not self.is_alive:
            raise ClosedError
        if len(self._waiting) >= self.max_waiting:
            raise QueueFullError
        entry: _Entry[T, R] = _Entry(item, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._waiting.append(entry)
        self._changed.set()
        try:
            return await entry.future
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # its batch has started already
                self._waiting.remove(entry)
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the worker is running."""
        return self._worker is not None and not self._worker.done()

    @property
    def running_seconds(self) -> float:
        """Seconds since the start of the oldest running batch; 0 if none runs."""
        now = time.perf_counter()
        return max((now - batch.started_at for batch in self._running.values()), default=0.0)

    async def close(self, timeout_seconds: float | None = None) -> None:
        """Accept no more items, run the waiting ones, then stop; items left at the timeout get `ClosedError`."""
        self._closed = True
        self._changed.set()
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=timeout_seconds)
            tasks = {self._worker, *self._running}
            for task in tasks:
                task.cancel()
            running = [entry for batch in self._running.values() for entry in batch.entries]
            await asyncio.wait(tasks)
            for entry in (*running, *self._waiting):
                if not entry.future.done():
                    entry.future.set_exception(ClosedError())
        self._waiting.clear()

    async def _work(self) -> None:
        while self._waiting or self._running or not self._closed:
            self._start_batches()
            await self._changed.wait()
            self._changed.clear()

    def _start_batches(self) -> None:
        """Start as many batches as fit."""
        while self._waiting and (concurrent_batches := self._concurrent_batches()):
            count = min(self._max_size, len(self._waiting))
            entries = [self._waiting.popleft() for _ in range(count)]
            batch = _Batch(entries, concurrent_batches, time.perf_counter())
            task = asyncio.create_task(self._run_batch(batch), name="batch")
            self._running[task] = batch
            task.add_done_callback(self._end)

    def _concurrent_batches(self) -> int:
        """Number of batches that will share the machine with the next one included; 0 if it may not start now."""
        wanted = len(self._running) + math.ceil(len(self._waiting) / self._max_size)
        concurrent_batches = min(self._max_concurrent_batches, wanted)
        taken = sum(Fraction(1, batch.concurrent_batches) for batch in self._running.values())
        has_room = taken + Fraction(1, concurrent_batches) <= 1
        return concurrent_batches if has_room and not self._ends_sooner_alone() else 0

    def _ends_sooner_alone(self) -> bool:
        """Whether a single item should wait for the running batch of a pair.

        If this batch has already run for longer than a batch alone takes, the item finishes sooner alone after it than
        next to it.
        """
        if len(self._running) != 1 or len(self._waiting) != 1:
            return False
        (batch,) = self._running.values()
        return batch.concurrent_batches == 2 and self.running_seconds > self._alone_seconds

    def _end(self, task: "asyncio.Task[None]") -> None:
        del self._running[task]
        self._changed.set()

    async def _run_batch(self, batch: _Batch[T, R]) -> None:
        entries = batch.entries
        results: Sequence[R | Exception]
        try:
            results = await self._run([entry.item for entry in entries], batch.concurrent_batches)
            if len(results) != len(entries):  # the missing one is unknown, so the whole batch fails
                raise RuntimeError(f"{len(results)} results came back for a batch of {len(entries)}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - for the callers of this batch; other batches continue
            results = [error] * len(entries)
        else:
            if batch.concurrent_batches == 1:
                self._alone_seconds = time.perf_counter() - batch.started_at
        seconds = time.perf_counter() - batch.started_at
        for entry, result in zip(entries, results, strict=True):
            if entry.future.done():  # its caller was cancelled
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(
                    BatchedResult(result, batch.started_at - entry.queued_at, seconds, len(entries))
                )
