"""Copy of the slices of a batch to the device."""

from collections.abc import Sequence

import numpy as np
import torch

from service.imaging.decode import Slice


class Staging:
    """Gathers slices into a batch on the device.

    On a GPU a batch is padded to one of a few sizes, so that every size was compiled and its memory allocated at the
    warm-up. It goes through pinned memory, from which the GPU copies while this thread continues. On a CPU a batch is
    not padded.

    Args:
        device: target of the batches.
        max_size: maximum number of slices in a batch.
        side: of a slice, in pixels.
    """

    def __init__(self, device: torch.device, max_size: int, side: int) -> None:
        self._device = device
        self._pinned: torch.Tensor | None = None
        if device.type == "cuda":
            self._pinned = torch.zeros(max_size, 1, side, side, dtype=torch.uint8, pin_memory=True)
        self._sizes = sizes_of_batches(max_size)

    def gather(self, slices: Sequence[Slice]) -> torch.Tensor:
        """Copy slices, uint8 (1, S, S), to one batch on the device, uint8 (N, 1, S, S); N is at least their number.

        The previous batch must be finished: it shares the memory.
        """
        if self._pinned is None:
            # np.stack would copy the pixels of a single slice for nothing
            return torch.from_numpy(slices[0][np.newaxis] if len(slices) == 1 else np.stack(slices)).to(self._device)
        size = next(size for size in self._sizes if size >= len(slices))
        rows = self._pinned.numpy()
        for row, ct_slice in zip(rows, slices, strict=False):
            row[:] = ct_slice
        return self._pinned[:size].to(self._device, non_blocking=True)


def sizes_of_batches(max_size: int) -> tuple[int, ...]:
    """List the batch sizes 1, 2, 4, ... and `max_size`: a batch is at most half empty."""
    powers = (2**power for power in range(max_size.bit_length()))
    return (*(size for size in powers if size < max_size), max_size)
