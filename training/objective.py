"""What a method of pretraining is to the run that trains it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import nn

TensorBatch: TypeAlias = Sequence[torch.Tensor]
"""Tensors of N rows each; what they are is for the objective to know."""


class Step(NamedTuple):
    """What one batch gave.

    Attributes:
        loss: float32 scalar with a gradient, mean over the batch's slices.
        right: slices whose larger logit was the right one; None for a method without labels.
    """

    loss: torch.Tensor
    right: int | None


class Objective(Protocol):
    """What the convolutions learn by.

    Attributes:
        heads: trained beside the convolutions, and thrown away after.
        count: slices that it learns from.
    """

    heads: nn.Module
    count: int

    def batches(self, epoch: int) -> Iterable[TensorBatch]:
        """The batches of one epoch, a function of seed and epoch alone."""
        ...

    def step(self, batch: TensorBatch) -> Step:
        """The loss of one batch; the gradient is the caller's to take."""
        ...
