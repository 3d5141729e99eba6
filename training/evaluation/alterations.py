"""Alterations of slices that take away traces of file formats and sources, and leave the lungs."""

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
"""Share of each side that masking blackens: where viewers print names, scales and letters."""


_MARK_LEVEL: Final = 235
"""Grey value from which something may be a printed mark."""


_MARK_EDGE: Final = 3
"""Pixels around a mark that go with it: its smooth edge, and what JPEG made of it."""


_MARK_AREA: Final = 0.005
"""Share of the slice up to which a bright patch counts as a mark: letters and arrows, not the spine."""


def altered(split: Split, alter: Callable[[Slice], Slice]) -> Split:
    """The split with every slice altered; labels and paths stay."""
    return Split(split.name, tuple(replace(scan, ct_slice=alter(scan.ct_slice)) for scan in split.scans))


def reencode(ct_slice: Slice) -> Slice:
    """As a 256 x 256 grey JPEG of quality 75, which leaves the same traces in every slice."""
    file = io.BytesIO()
    _resized(ct_slice, 256, 256).save(file, "JPEG", quality=75)
    return decode(file.getvalue())


def mask(ct_slice: Slice) -> Slice:
    """Without what was printed on it: a black frame, and small bright marks filled from their surroundings."""
    grey: NDArray[np.uint8] = ct_slice[0].copy()
    patches, count = ndimage.label(grey >= _MARK_LEVEL)
    sizes = ndimage.sum_labels(np.ones_like(grey, dtype=np.float64), patches, range(count + 1))
    sizes[0] = np.inf  # what is no mark
    marks = ndimage.binary_dilation((sizes <= _MARK_AREA * grey.size)[patches], iterations=_MARK_EDGE)
    grey[marks] = ndimage.median_filter(grey, size=15)[marks]
    rows, columns = (max(1, round(_FRAME * side)) for side in grey.shape)
    for edge in (grey[:rows], grey[-rows:], grey[:, :columns], grey[:, -columns:]):
        edge[:] = 0
    return grey[np.newaxis]


def downscale(ct_slice: Slice) -> Slice:
    """To half of the network's input, which takes the finer grain of one source away."""
    return np.asarray(_resized(ct_slice, 112, 112))[np.newaxis]


def upscale(ct_slice: Slice) -> Slice:
    """To twice its size."""
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
