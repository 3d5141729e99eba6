"""A loaded model with its queue and its users."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from service.imaging.decode import Slice
from service.inference.batcher import Batcher
from service.inference.running_clock import RunningClock
from service.inference.statistics import ModelStatistics
from service.metrics import Metrics
from service.model.card import OperatingPoint
from service.model.prediction import NetworkPrediction
from service.model.predictor import Predictor
from service.settings import Settings

_CLOSE_SECONDS: Final = 5.0
"""For the running batch; by then the web server has finished or dropped every request."""


@dataclass(frozen=True, slots=True)
class QueuedSlice:
    """A slice that waits for the network.

    Attributes:
        slice_: uint8 (1, S, S).
        look_first: whether the lung finder decides if the network reads it.
    """

    slice_: Slice
    look_first: bool = False


class ServedModel:
    """A predictor with the queue in front of it, its statistics, and the number of its users.

    Attributes:
        predictor: the loaded model.
        card: its card.
        operating_point: of the settings, for requests that name none.
        batcher: the queue.
        statistics: counts and times, for the V2 protocol.
        study_room: places of all studies in the queue, just enough to keep the machine busy.
    """

    def __init__(self, predictor: Predictor, metrics: Metrics, settings: Settings, clock: RunningClock) -> None:
        async def run(
            queued: Sequence[QueuedSlice], concurrent_batches: int
        ) -> Sequence[NetworkPrediction | Exception]:
            metrics.batch_size.observe(len(queued))
            self.statistics.add_batch()
            look_first = [item.look_first for item in queued]
            began = clock.seconds
            self._batches_began.append(began)
            try:
                return await predictor.predict([item.slice_ for item in queued], concurrent_batches, look_first)
            finally:
                self._batches_began.remove(began)

        self.predictor = predictor
        self.statistics = ModelStatistics()
        self.card = predictor.card
        self.operating_point = predictor.card.operating_point(settings.operating_point)
        self.batcher: Batcher[QueuedSlice, NetworkPrediction] = Batcher(
            run,
            max_size=predictor.max_batch_size,
            max_waiting=settings.queue_max_length,
            max_concurrent_batches=predictor.max_concurrent_batches,
        )
        busy = predictor.max_batch_size * predictor.max_concurrent_batches
        self.study_room = asyncio.Semaphore(max(1, min(busy + 1, settings.queue_max_length // 2)))
        self._clock = clock
        self._batches_began: list[float] = []
        self._stuck_after_seconds = settings.request_timeout_seconds
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def point_of(self, name: str | None) -> OperatingPoint:
        """Find the operating point that a request names, or that of the settings for None.

        Raises:
            MalformedRequestError: the card has no such operating point.
        """
        return self.operating_point if name is None else self.card.operating_point(name)

    @property
    def is_healthy(self) -> bool:
        """Whether the model can predict: the batcher runs, no batch is stuck, and the device is not lost."""
        now = self._clock.seconds
        is_stuck = now - min(self._batches_began, default=now) >= self._stuck_after_seconds
        return self.batcher.is_alive and not is_stuck and not self.predictor.device_lost

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the queue open as long as the context lasts."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def retire(self) -> None:
        """Close after the last user has left."""
        await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Predict for the waiting slices, within a time limit, and end the threads."""
        await self.batcher.close(_CLOSE_SECONDS)
        self.predictor.close()
