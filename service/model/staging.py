"""Copy of the slices of a batch to the device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import torch

from service.imaging.decode import Slice


class Staging:
    """Gathers slices into a batch on the device.

    On a GPU a batch is padded to one of a few sizes, so that every size was compiled and its memory allocated at the
    warm-up. It has a slot of its own: pinned memory, memory of the device, and a stream for the copy between them, so
    that the copy runs while the GPU computes another batch. On a CPU a batch is not padded.

    Args:
        device: target of the batches.
        max_size: maximum number of slices in a batch.
        side: of a slice, in pixels.
        slots: on a GPU, number of batches that may be in use at a time; 0 on a CPU.
    """

    def __init__(self, device: torch.device, max_size: int, side: int, slots: int = 0) -> None:
        self._device = device
        self._sizes = sizes_of_batches(max_size)
        self._slots: SimpleQueue[_Slot] | None = None
        if slots:
            self._slots = SimpleQueue()
            for _ in range(slots):
                self._slots.put(_Slot(device, max_size, side))

    @contextmanager
    def gather(self, slices: Sequence[Slice]) -> Iterator[torch.Tensor]:
        """Copy slices, uint8 (1, S, S), to one batch on the device, uint8 (N, 1, S, S); N is at least their number.

        The batch may be used as long as the context lasts. Waits while all slots are in use.
        """
        if self._slots is None:
            # np.stack would copy the pixels of a single slice for nothing
            yield torch.from_numpy(slices[0][np.newaxis] if len(slices) == 1 else np.stack(slices)).to(self._device)
            return
        size = next(size for size in self._sizes if size >= len(slices))
        slot = self._slots.get()
        try:
            yield slot.copy(slices, size)
        finally:
            self._slots.put(slot)


class _Slot:
    """Memory for one batch, on the host and on the device."""

    def __init__(self, device: torch.device, max_size: int, side: int) -> None:
        shape = (max_size, 1, side, side)
        self._pinned = torch.zeros(shape, dtype=torch.uint8).pin_memory()
        self._on_device = torch.empty(shape, dtype=torch.uint8, device=device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, slices: Sequence[Slice], size: int) -> torch.Tensor:
        """Copy slices to a batch of `size`, and wait until it is there: any stream may read it then."""
        for row, ct_slice in zip(self._pinned.numpy(), slices, strict=False):
            row[:] = ct_slice
        batch = self._on_device[:size]
        with torch.cuda.stream(self._stream):
            batch.copy_(self._pinned[:size], non_blocking=True)
        self._stream.synchronize()
        return batch


def sizes_of_batches(max_size: int) -> tuple[int, ...]:
    """List the batch sizes 1, 2, 4, ... and `max_size`: a batch is at most half empty."""
    powers = (2**power for power in range(max_size.bit_length()))
    return (*(size for size in powers if size < max_size), max_size)
