"""Accepted kinds of images, and their conversion to the bytes of a file."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.window import Window

if TYPE_CHECKING:
    import os

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]"
"""A path, the bytes of a file, a Pillow image, or an array: Hounsfield units with a window, or grey or colour.

Hounsfield units are (H, W) or (1, H, W) of any integer or float dtype, grey is uint8 or uint16 of the same shape, and
colour is uint8 (H, W, 3).
"""

_AIR: float = -1024.0


def file_bytes(image: ImageLike, window: Window | None = None) -> bytes:
    """Return the bytes to send: the file unchanged, or a PNG of an image in memory.

    Args:
        image: see `ImageLike`.
        window: maps Hounsfield units to grey; infinite values and those that are not a number are air.

    Raises:
        OSError: the file can't be read.
        ValueError: an array of another shape or dtype, or a window for something else than an array.
        TypeError: none of the kinds above.
    """
    if isinstance(image, np.ndarray):
        return _png(Image.fromarray(_grey(image, window)))
    if window is not None:
        raise ValueError("a window is for an array of Hounsfield units; a DICOM file has its own rescaling")
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return _png(image)
    if isinstance(image, str) or hasattr(image, "__fspath__"):
        return Path(image).read_bytes()
    raise TypeError(f"an image is a path, bytes, a Pillow image or a numpy array, not {type(image).__name__}")


def _grey(array: NDArray[Any], window: Window | None) -> NDArray[Any]:
    slice_ = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    if window is not None:
        if slice_.ndim != 2 or slice_.dtype.kind not in "iuf":
            raise ValueError(f"Hounsfield units are real numbers (H, W) or (1, H, W), not {array.dtype} {array.shape}")
        hounsfield = np.nan_to_num(slice_.astype(np.float64), nan=_AIR, posinf=_AIR, neginf=_AIR)
        return window.grey(hounsfield)
    is_colour = slice_.ndim == 3 and slice_.shape[-1] == 3 and slice_.dtype == np.uint8
    if not is_colour and not (slice_.ndim == 2 and slice_.dtype in (np.uint8, np.uint16)):
        raise ValueError(
            f"an array must be uint8 or uint16 (H, W) or (1, H, W), or uint8 (H, W, 3), not {array.dtype} "
            f"{array.shape}; for Hounsfield units, name a window: window=LUNG"
        )
    return np.ascontiguousarray(slice_)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
