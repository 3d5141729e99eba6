"""Counts and times of one loaded model."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.errors import UnusableImageError


@dataclass(slots=True)
class Total:
    """Number of some events, and the sum of their seconds."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one event."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class ModelStatistics:
    """Statistics of a model since it was loaded, over all routes.

    Attributes:
        batches: runs of the network.
        last_inference_at: start of the last run in seconds since 1970; 0 before the first.
        success: slices with a prediction, with the time in queue and network.
        failure: slices that the queue refused or the network failed.
        queue: time of these slices in the queue.
        network: time of the batches of these slices.
    """

    batches: int = 0
    last_inference_at: float = 0.0
    success: Total = field(default_factory=Total)
    failure: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    network: Total = field(default_factory=Total)

    def add_batch(self) -> None:
        """Count a run of the network that starts now."""
        self.batches += 1
        self.last_inference_at = time.time()

    @contextmanager
    def counting_failures(self) -> Iterator[None]:
        """Count an error in the context, with its time; cancelled work is not a failure."""
        began = time.perf_counter()
        try:
            yield
        except UnusableImageError:  # refused by the lung finder, as it should be
            raise
        except Exception:
            self.failure.add(time.perf_counter() - began)
            raise

    def add_success(self, queue_seconds: float, run_seconds: float) -> None:
        """Count a slice with a prediction."""
        self.success.add(queue_seconds + run_seconds)
        self.queue.add(queue_seconds)
        self.network.add(run_seconds)
