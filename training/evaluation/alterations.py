"""Alterations of slices that remove traces of file formats and sources, but not of disease."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from service.imaging.decode import Slice, decode
from training.data.covid_ct import Split

_FRAME: Final = 0.06
"""Share of each side that masking blackens; viewers print names, scales and letters there."""

_MARK_LEVEL: Final = 235
"""Smallest grey value of a printed mark."""

_MARK_EDGE: Final = 3
"""Pixels around a mark that are filled with it: its smooth edge and JPEG's traces."""

_MARK_AREA: Final = 0.005
"""Largest mark as a share of the slice: letters and arrows, not the spine."""


def altered(split: Split, alter: Callable[[Slice], Slice]) -> Split:
    """Alter every slice of a split; its labels, paths and patients do not change."""
    return replace(split, slices=tuple(replace(slice_, pixels=alter(slice_.pixels)) for slice_ in split.slices))


def reencode(ct_slice: Slice) -> Slice:
    """Save as 256 x 256 grey JPEG of quality 75, which gives every slice the same traces."""
    file = io.BytesIO()
    _resized(ct_slice, 256, 256).save(file, "JPEG", quality=75)
    return decode(file.getvalue())


def mask(ct_slice: Slice) -> Slice:
    """Blacken a frame, and fill small bright marks, such as letters and arrows, from their surroundings."""
    grey: NDArray[np.uint8] = ct_slice[0].copy()
    patches, count = ndimage.label(grey >= _MARK_LEVEL)
    sizes = ndimage.sum_labels(np.ones_like(grey, dtype=np.float64), patches, range(count + 1))
    sizes[0] = np.inf  # the background is not a mark
    marks = ndimage.binary_dilation((sizes <= _MARK_AREA * grey.size)[patches], iterations=_MARK_EDGE)
    grey[marks] = ndimage.median_filter(grey, size=15)[marks]
    rows, columns = (max(1, round(_FRAME * side)) for side in grey.shape)
    for edge in (grey[:rows], grey[-rows:], grey[:, :columns], grey[:, -columns:]):
        edge[:] = 0
    return grey[np.newaxis]


def downscale(ct_slice: Slice) -> Slice:
    """Scale to 112 x 112, which removes the finer grain of one source."""
    return np.asarray(_resized(ct_slice, 112, 112))[np.newaxis]


def upscale(ct_slice: Slice) -> Slice:
    """Scale to twice the size."""
    _, height, width = ct_slice.shape
    return np.asarray(_resized(ct_slice, 2 * width, 2 * height))[np.newaxis]


ALTERATIONS: Final[dict[str, Callable[[Slice], Slice]]] = {
    "reencoded": reencode,
    "masked": mask,
    "downscaled": downscale,
    "upscaled": upscale,
}


def _resized(ct_slice: Slice, width: int, height: int) -> Image.Image:
    return Image.fromarray(ct_slice[0]).resize((width, height), Image.Resampling.BILINEAR)
