"""Slices as network input, prepared like in the service."""

from collections.abc import Sequence
from typing import Final

import torch

from service.imaging.decode import to_input
from training.data.covid_ct import Split

_PLAIN_BATCH: Final = 16
"""Slices in a batch where no gradient is taken; it changes memory and speed, not results."""


def plain_inputs(split: Split, input_size: int) -> torch.Tensor:
    """Return the slices of a split like the service feeds them: uint8 (N, 1, input_size, input_size)."""
    return torch.stack([torch.from_numpy(to_input(labelled.pixels, input_size)) for labelled in split.slices])


def in_batches(images: torch.Tensor) -> Sequence[torch.Tensor]:
    """Split images into batches that fit into memory without gradients."""
    return torch.split(images, _PLAIN_BATCH)
