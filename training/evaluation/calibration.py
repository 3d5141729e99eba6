"""Calibration: the temperature, the errors with and without it, and the reliability diagram."""

import torch
from torch import nn
from torchmetrics.functional.classification import binary_calibration_error

from training.run.record import Record

BINS = 10


class CalibrationErrors(Record):
    """Errors of the probability of COVID.

    Attributes:
        expected_calibration_error: mean distance between probability and share of COVID over 10 equal bins, weighted
            by their slices (Naeini et al. 2015).
        brier_score: mean squared difference of probability and label (Brier 1950).
    """

    expected_calibration_error: float
    brier_score: float


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


class Calibration(Record):
    """Errors of one split without and with temperature, and reliability with temperature."""

    before: CalibrationErrors
    after: CalibrationErrors
    reliability: tuple[ReliabilityBin, ...]


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the temperature that minimises cross-entropy of float (N, 2) logits (Guo et al. 2017, arXiv 1706.04599).

    It changes neither the order of probabilities nor their side of 0.5. Bounded to 0.05 to 20, for logits that separate
    the classes perfectly.
    """
    log_temperature = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(logits / log_temperature.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return log_temperature.detach().exp().clamp(0.05, 20).item()


def measure_calibration(probabilities: torch.Tensor, labels: torch.Tensor, temperature: float) -> Calibration:
    """Measure calibration of float (N,) probabilities, which include the temperature, against int64 (N,) labels."""
    before = torch.sigmoid(torch.logit(probabilities.double(), eps=1e-9) * temperature)
    return Calibration(
        before=_errors(before, labels),
        after=_errors(probabilities, labels),
        reliability=reliability(probabilities, labels),
    )


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


def _errors(probabilities: torch.Tensor, labels: torch.Tensor) -> CalibrationErrors:
    return CalibrationErrors(
        expected_calibration_error=binary_calibration_error(probabilities, labels, n_bins=BINS).item(),
        brier_score=(probabilities - labels).square().mean().item(),
    )
