"""Timing of the stages of a prediction."""

import time

from service.metrics import Metrics


class StageTimer:
    """Measures stages: milliseconds for the response, seconds for the histogram."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._since = time.perf_counter()
        self.milliseconds: dict[str, float] = {}

    def copy(self) -> "StageTimer":
        """Copy the stages for one of several images of a request; the next stage begins now."""
        copy = StageTimer(self._metrics)
        copy.milliseconds = dict(self.milliseconds)
        return copy

    def finish(self, stage: str) -> None:
        """Record `stage`, from the end of the previous one until now."""
        now = time.perf_counter()
        self.record(stage, now - self._since)
        self._since = now

    def record(self, stage: str, seconds: float) -> None:
        """Record a stage that was measured elsewhere."""
        self._metrics.stage_seconds.labels(stage=stage).observe(seconds)
        self.milliseconds[stage] = round(seconds * 1000, 3)
