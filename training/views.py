"""What the network sees of a slice while it is pretrained: random crops, altered at random."""

from collections.abc import Callable
from typing import Final, TypeAlias

import torch
from torchvision.transforms import v2

from service.image import Slice
from training.config import Pretraining
from training.data import compress
from training.seeding import derive_seed

View: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

_BLUR_KERNEL: Final = 9
"""Pixels, three sigmas of the strongest blur to either side."""
_BLUR_SIGMA: Final = (0.1, 1.5)


def shrink(ct_slice: Slice, side: int) -> torch.Tensor:
    """Resize once what every view would resize: uint8 (1, H, W) to a shorter side of `side` pixels, uint8."""
    image: torch.Tensor = v2.functional.resize(torch.from_numpy(ct_slice.copy()), [side], antialias=True)
    return image


def random_view(settings: Pretraining) -> View:
    """uint8 (1, H, W) -> uint8 (1, V, V): compression, crop, flip, brightness and contrast, blur, each at random."""
    transform: View = v2.Compose(
        [
            # before the crop, so that the blocks lie as in a file of that size
            v2.RandomApply([v2.Lambda(compress)], p=settings.jpeg_probability),
            v2.RandomResizedCrop(
                settings.view_size, scale=(settings.crop_scale_min, settings.crop_scale_max), antialias=True
            ),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=settings.brightness, contrast=settings.contrast),
            v2.RandomApply([v2.GaussianBlur(_BLUR_KERNEL, _BLUR_SIGMA)], p=settings.blur_probability),
        ]
    )
    return transform


def draw_views(view: View, image: torch.Tensor, number: int, seed: int, index: int) -> tuple[torch.Tensor, ...]:
    """Some views of one image that depend on seed and index alone, whatever was drawn before and in which process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "item", index))
        return tuple(view(image) for _ in range(number))
