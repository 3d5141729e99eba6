"""A figure over several runs: seeds, or dealings to folds."""

from collections.abc import Sequence
from statistics import mean, stdev

from training.records import Record


class Spread(Record):
    """Mean and standard deviation over runs; the deviation of a single run is None."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.deviation is None else f" ± {self.deviation:.3f}")


def spread_of(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    deviation = round(stdev(values), 4) if len(values) > 1 else None
    return Spread(mean=round(mean(values), 4), deviation=deviation)
