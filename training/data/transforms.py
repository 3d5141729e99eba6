"""Transforms of one slice: JPEG compression, and the resize to the network's input."""

import io
from typing import Final

import torch
from PIL import Image

from service.imaging.decode import Slice, decode, to_input

_JPEG_QUALITY: Final = (30, 96)


def compress(image: torch.Tensor) -> torch.Tensor:
    """uint8 (1, H, W) through a JPEG file of some quality and back; torchvision's own way is about to leave it."""
    file = io.BytesIO()
    quality = int(torch.randint(*_JPEG_QUALITY, ()))
    Image.fromarray(image[0].numpy()).save(file, "JPEG", quality=quality)
    return torch.tensor(decode(file.getvalue()))


def as_input(ct_slice: Slice, side: int) -> torch.Tensor:
    """As the network that serves sees it: uint8 (1, side, side)."""
    return torch.from_numpy(to_input(ct_slice, side))
