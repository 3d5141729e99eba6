"""Reliability of probabilities: how often slices with some probability are COVID."""

import torch

from training.run.record import Record

BINS = 10


class ReliabilityBin(Record):
    """The slices with a probability in [low, high).

    Attributes:
        mean_probability, share_of_covid: None where `count` is 0.
    """

    low: float
    high: float
    count: int
    mean_probability: float | None
    share_of_covid: float | None


def reliability(probabilities: torch.Tensor, labels: torch.Tensor) -> tuple[ReliabilityBin, ...]:
    """Return the points of a reliability diagram (DeGroot & Fienberg 1983), in ten equal bins."""
    places = (probabilities * BINS).long().clamp(max=BINS - 1)
    bins = []
    for place in range(BINS):
        inside = places == place
        count = int(inside.sum())
        bins.append(
            ReliabilityBin(
                low=place / BINS,
                high=(place + 1) / BINS,
                count=count,
                mean_probability=probabilities[inside].mean().item() if count else None,
                share_of_covid=labels[inside].float().mean().item() if count else None,
            )
        )
    return tuple(bins)
