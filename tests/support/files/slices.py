"""Synthetic slices for networks."""

import torch

from service.model.file import synthetic_slice


def slices(count: int, size: int = 32) -> torch.Tensor:
    """`count` different slices, the same at every call: uint8 (count, 1, size, size)."""
    return torch.stack([torch.from_numpy(synthetic_slice(seed, size)) for seed in range(count)])
