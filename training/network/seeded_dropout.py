"""Dropout whose mask of a slice depends on the slice alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seeded_dropout(layer: nn.Dropout, seeds: Sequence[int]) -> Iterator[None]:
    """Draw the mask of each slice from its seed, so that it does not depend on the other slices of the batch."""

    def drop(_: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        (values,) = inputs
        noise = [torch.rand(values.shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return values * (torch.stack(noise).to(values.device) >= layer.p) / (1 - layer.p)

    hook, was_training = layer.register_forward_pre_hook(drop), layer.training
    layer.eval()  # so that it draws no mask itself
    try:
        yield
    finally:
        hook.remove()
        layer.train(was_training)
