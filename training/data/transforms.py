"""Transforms of one slice: the resize to the network's input, and JPEG compression."""

import io
from typing import Final

import torch
from PIL import Image

from service.imaging.decode import Slice, decode, to_input

_JPEG_QUALITY: Final = (30, 96)


def as_input(ct_slice: Slice, side: int) -> torch.Tensor:
    """Resize a slice exactly like the service does: uint8 (1, side, side)."""
    return torch.from_numpy(to_input(ct_slice, side))


def compress(image: torch.Tensor) -> torch.Tensor:
    """Compress uint8 (1, H, W) as JPEG at a random quality and decode it again, because torchvision drops its own."""
    file = io.BytesIO()
    quality = int(torch.randint(*_JPEG_QUALITY, ()))
    Image.fromarray(image[0].numpy()).save(file, "JPEG", quality=quality)
    return torch.tensor(decode(file.getvalue()))
