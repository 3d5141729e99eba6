"""Pods, their queues and the autoscaler in a burst of requests: a simulation in steps of requests."""

import heapq
import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.scaling.autoscaler import SYNC_SECONDS, Autoscaler, Settings

_SCRAPE_SECONDS: Final = 10
_RATE_SECONDS: Final = 60
_SETTLED_SECONDS: Final = 300
_LARGE: Final = 10_000


@dataclass(frozen=True, slots=True)
class PodModel:
    """A pod.

    Attributes:
        processors: slices that it computes at the same time, one on each processor.
        most_requests: requests in it; more get a 503.
        service_seconds: measured times of a slice on one processor, to draw from.
        start_seconds: from the autoscaler's decision until it is ready.
    """

    processors: int
    most_requests: int
    service_seconds: NDArray[np.float64]
    start_seconds: float

    @property
    def capacity(self) -> float:
        """Slices in a second."""
        return self.processors / float(self.service_seconds.mean())


@dataclass(frozen=True, slots=True)
class Load:
    """Random (Poisson) arrivals: `rate` per second, during the burst `factor` times as many."""

    rate: float
    factor: float = 10
    before_seconds: int = 300
    burst_seconds: int = 600
    after_seconds: int = 900

    @property
    def seconds(self) -> int:
        """Return the length of the simulation."""
        return self.before_seconds + self.burst_seconds + self.after_seconds

    def arrivals(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Draw the times of all requests, ascending."""
        ends = np.cumsum([self.before_seconds, self.burst_seconds, self.after_seconds])
        rates = [self.rate, self.rate * self.factor, self.rate]
        parts = [
            generator.uniform(end - length, end, generator.poisson(rate * length))
            for end, length, rate in zip(
                ends, (self.before_seconds, self.burst_seconds, self.after_seconds), rates, strict=True
            )
        ]
        return np.sort(np.concatenate(parts))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results for clients and cluster, counted from the start of the burst.

    Attributes:
        requests: number.
        refused: share with a 503.
        p50_seconds: of the answers.
        p99_seconds: of the answers.
        settled_p99_seconds: of the answers to requests from the sixth minute to the end of the burst.
        most_replicas: at a time.
        refused_seconds: from the start of the burst to the last refusal.
        replica_hours: of the whole simulation.
    """

    requests: int
    refused: float
    p50_seconds: float
    p99_seconds: float
    settled_p99_seconds: float
    most_replicas: int
    refused_seconds: float
    replica_hours: float


@dataclass(slots=True, eq=False)
class _Pod:
    """Free times of its processors, and ends of the requests in it, as heaps."""

    ready_at: float
    free: list[float]
    ends: list[float] = field(default_factory=list)

    def take(self, now: float, seconds: float, most: int) -> float | None:
        """Return the start of the slice's computation, or None if the pod refuses it."""
        while self.ends and self.ends[0] <= now:
            heapq.heappop(self.ends)
        if len(self.ends) >= most:
            return None
        start = max(now, self.free[0])
        heapq.heapreplace(self.free, start + seconds)
        heapq.heappush(self.ends, start + seconds)
        return start


class _Metrics:
    """Measurements of Prometheus and the metrics server, in bins of one second."""

    def __init__(self, seconds: int) -> None:
        self._waits = np.zeros(seconds + _LARGE)
        self._answers = np.zeros(seconds + _LARGE)
        self._busy = np.zeros(seconds + _LARGE)

    def add(self, arrival: float, start: float, end: float) -> None:
        """Record one answered request."""
        self._waits[int(end)] += start - arrival
        self._answers[int(end)] += 1
        for second in range(int(start), int(end) + 1):
            self._busy[second] += min(end, second + 1) - max(start, second)

    def mean_wait(self, now: float) -> float:
        """Return the mean wait of the last minute, at the last scrape."""
        scraped = int(now) // _SCRAPE_SECONDS * _SCRAPE_SECONDS
        window = slice(max(0, scraped - _RATE_SECONDS), scraped)
        return float(self._waits[window].sum() / max(self._answers[window].sum(), 1e-3))

    def busy_processors(self, now: float) -> float:
        """Return the mean number of busy processors since the last sync."""
        window = slice(max(0, int(now) - SYNC_SECONDS), int(now))
        return float(self._busy[window].mean()) if int(now) else 0.0


def simulate(settings: Settings, model: PodModel, load: Load, seed: int = 0) -> Outcome:
    """Send every request to a random ready pod, and scale at each sync of the autoscaler."""
    generator = np.random.default_rng(seed)
    arrivals = load.arrivals(generator)
    services = generator.choice(model.service_seconds, len(arrivals))
    choices = generator.random(len(arrivals))
    scaler, metrics = Autoscaler(settings), _Metrics(load.seconds)
    pods = [_Pod(0.0, [0.0] * model.processors) for _ in range(settings.least)]
    starts = np.full(len(arrivals), np.nan)
    most, pod_seconds, sync = len(pods), 0.0, 0.0
    for index, (now, seconds, choice) in enumerate(zip(arrivals, services, choices, strict=True)):
        while sync <= now:
            pods = _scale(pods, scaler, metrics, sync, model)
            most, pod_seconds = max(most, len(pods)), pod_seconds + len(pods) * SYNC_SECONDS
            sync += SYNC_SECONDS
        ready = [pod for pod in pods if pod.ready_at <= now]
        start = ready[int(choice * len(ready))].take(now, seconds, model.most_requests)
        if start is not None:
            starts[index] = start
            metrics.add(now, start, start + seconds)
    counted = arrivals >= load.before_seconds
    answered = counted & ~np.isnan(starts)
    refused = counted & np.isnan(starts)
    latencies = starts + services - arrivals
    burst_end = load.before_seconds + load.burst_seconds
    settled = answered & (arrivals >= load.before_seconds + _SETTLED_SECONDS) & (arrivals < burst_end)
    last = arrivals[refused].max() - load.before_seconds if refused.any() else 0.0
    return Outcome(
        requests=int(counted.sum()),
        refused=float(refused.sum() / counted.sum()),
        p50_seconds=float(np.quantile(latencies[answered], 0.5)),
        p99_seconds=float(np.quantile(latencies[answered], 0.99)),
        settled_p99_seconds=float(np.quantile(latencies[settled], 0.99)),
        most_replicas=most,
        refused_seconds=float(last),
        replica_hours=pod_seconds / 3600,
    )


def _scale(pods: list[_Pod], scaler: Autoscaler, metrics: _Metrics, now: float, model: PodModel) -> list[_Pod]:
    """Ask the autoscaler; new pods become ready later, the newest pods go first and still answer what they have."""
    ready = sum(pod.ready_at <= now for pod in pods)
    share = metrics.busy_processors(now) / (ready * model.processors)
    wanted = scaler.sync(now, ready, metrics.mean_wait(now), min(1.0, share))
    new = [_Pod(now + model.start_seconds, [math.inf] * model.processors) for _ in range(wanted - len(pods))]
    for pod in new:
        pod.free = [pod.ready_at] * model.processors
    return [*pods, *new][:wanted]
