"""Pictures of a heat map: over its slice, or alone.

A heat map is relative: its strongest place, for or against the positive class, is 1. So places of one slice can be
compared, and not one slice with another.
"""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.decode import Slice

_COLOURS: Final = (
    (87, 16, 110),
    (137, 34, 106),
    (188, 55, 84),
    (227, 89, 51),
    (249, 142, 9),
    (249, 203, 53),
    (252, 255, 164),
)
"""Steps of matplotlib's `inferno` (CC0): its lightness rises evenly, also for the colour-blind. Its blacks are left
out: they would hide the slice."""

_MAX_OPACITY: Final = 0.6
"""The anatomy below the strongest place must stay visible."""

_COMPRESSION: Final = 3
"""Of zlib's 9; more takes far longer for a few per cent."""


def overlay(ct_slice: Slice, heatmap: NDArray[np.float32], max_side: int | None = None) -> Image.Image:
    """Draw the slice with the evidence for the positive class in colour; evidence against it is not shown.

    The map is scaled by its strongest value of either sign, enlarged bicubically to the slice and drawn from clear
    (none) over purple and orange to yellow (strongest). Its opacity grows with it, to 60 %.

    Args:
        ct_slice: uint8 (1, H, W), as it was sent.
        heatmap: float32 (h, w), evidence by position.
        max_side: longest side of the picture in pixels; None keeps the slice's own size.

    Returns:
        An RGB image of the slice's own aspect.
    """
    grey = grey_image(ct_slice, max_side)
    evidence = Image.fromarray(scale_by_peak(heatmap)).resize(grey.size, Image.Resampling.BICUBIC)
    strength = Image.fromarray((np.clip(np.asarray(evidence), 0, 1) * 255).astype(np.uint8))
    opacity = strength.point([round(level * _MAX_OPACITY) for level in range(256)])
    strength.putpalette(_palette())
    return Image.composite(strength.convert("RGB"), grey.convert("RGB"), opacity)


def heatmap_image(heatmap: NDArray[np.float32]) -> Image.Image:
    """Draw the heat map alone, one grey pixel for each position.

    128 is no evidence, 255 the strongest for the positive class, 1 the same strength against it.

    Args:
        heatmap: float32 (h, w).

    Returns:
        A grey image of (w, h) pixels.
    """
    return Image.fromarray(np.rint(128 + 127 * scale_by_peak(heatmap)).astype(np.uint8))


def grey_image(ct_slice: Slice, max_side: int | None = None) -> Image.Image:
    """Draw the slice as a grey image, reduced if a side is longer than `max_side` pixels."""
    image = Image.fromarray(ct_slice[0])
    if max_side is not None:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return image


def scale_by_peak(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide the map by its strongest absolute value: -1 to 1, or all 0 without evidence."""
    strongest = float(np.abs(heatmap).max())
    return np.zeros_like(heatmap) if strongest == 0 else heatmap / np.float32(strongest)


def png(image: Image.Image) -> bytes:
    """Encode the image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def _palette() -> list[int]:
    steps = np.asarray(_COLOURS, dtype=np.float32)
    at = np.linspace(0, len(steps) - 1, 256)
    channels = [np.interp(at, np.arange(len(steps)), steps[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(int).ravel().tolist()
