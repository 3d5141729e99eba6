"""Accepted kinds of images, and their conversion to the bytes of a file."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import os

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]"
"""A path, the bytes of a file, a Pillow image, or uint8 or uint16 (H, W), (1, H, W) or (H, W, 3)."""


def file_bytes(image: ImageLike) -> bytes:
    """Return the bytes to send: the file unchanged, or a PNG of an image in memory.

    Raises:
        OSError: the file can't be read.
        ValueError: an array of another shape or dtype.
        TypeError: none of the kinds above.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return _png(image)
    if isinstance(image, np.ndarray):
        return _png(Image.fromarray(_checked(image)))
    if isinstance(image, str) or hasattr(image, "__fspath__"):
        return Path(image).read_bytes()
    raise TypeError(f"an image is a path, bytes, a Pillow image or a numpy array, not {type(image).__name__}")


def _checked(array: NDArray[Any]) -> NDArray[Any]:
    grey = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    colour = grey.ndim == 3 and grey.shape[-1] == 3 and grey.dtype == np.uint8
    if not colour and not (grey.ndim == 2 and grey.dtype in (np.uint8, np.uint16)):
        raise ValueError(
            f"an array must be uint8 or uint16 (H, W) or (1, H, W), or uint8 (H, W, 3), not {array.dtype} {array.shape}"
        )
    return np.ascontiguousarray(grey)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
