"""Batches of slices on the device of the network."""

from collections.abc import Sequence

import numpy as np
import torch

from service.imaging.decode import Slice


def sizes_of_batches(max_size: int) -> tuple[int, ...]:
    """List the batch sizes 1, 2, 4, ... and `max_size`: a batch is at most half empty."""
    powers = (2**power for power in range(max_size.bit_length()))
    return (*(size for size in powers if size < max_size), max_size)


def to_device(slices: Sequence[Slice], device: torch.device, max_size: int) -> torch.Tensor:
    """Copy slices, uint8 (1, S, S), to one batch on the device, uint8 (N, 1, S, S).

    On a CPU, N is the number of slices. On a GPU, zeros pad the batch to one of `sizes_of_batches`, so that each size
    was compiled and got its memory at the warm-up. Pinned memory makes the copy faster.
    """
    if device.type == "cpu":
        # np.stack would copy the pixels of a single slice
        return torch.from_numpy(slices[0][np.newaxis] if len(slices) == 1 else np.stack(slices))
    size = next(size for size in sizes_of_batches(max_size) if size >= len(slices))
    batch = torch.zeros(size, *slices[0].shape, dtype=torch.uint8, pin_memory=True)
    np.stack(slices, out=batch.numpy()[: len(slices)])
    return batch.to(device, non_blocking=True)
