"""Pictures that are in two splits although their files and sizes differ: scaled, cropped or recompressed copies."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.decode import Slice

ALIKE: Final = 0.97
"""Correlation of two thumbnails above which they show the same picture. In COVID-CT, whose splits share 425 x 118 +
543 x 203 pairs, two pairs are above it, both the same picture under two names; the next pair is below 0.97."""

_SIDE: Final = 32


def find_near_copies(first: Sequence[Slice], second: Sequence[Slice]) -> list[tuple[int, int]]:
    """Find the places of slices, uint8 (1, H, W) each, whose thumbnails correlate above `ALIKE`."""
    correlations = _thumbnails(first) @ _thumbnails(second).T
    return [(int(i), int(j)) for i, j in np.argwhere(correlations > ALIKE)]


def _thumbnails(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """Shrink, take off the mean and divide by the norm, so that a product is a correlation: (N, 1024)."""
    rows = np.empty((len(slices), _SIDE**2))
    for row, slice_ in zip(rows, slices, strict=True):
        small = Image.fromarray(slice_[0]).resize((_SIDE, _SIDE), Image.Resampling.BOX)
        row[:] = np.asarray(small, np.float64).ravel()
        row -= row.mean()
        row /= np.linalg.norm(row) or 1.0
    return rows
