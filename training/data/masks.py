"""Masks that people drew, as image files: two values, of which the larger is inside."""

from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import TrainingError

Mask: TypeAlias = NDArray[np.bool_]
"""bool (H, W), True inside."""

_GREY_EDGES: Final = 255
"""Largest value of a mask that may have more than two: an 8-bit picture with smooth edges, inside above half."""


def read_mask(path: Path, slice_size: tuple[int, int], size: int) -> Mask:
    """Read a mask and scale it to a square.

    Args:
        path: of the mask. 0 and 1, 0 and 255 and any other two values are understood.
        slice_size: width and height of its slice, in pixels; the mask has the same.
        size: pixels of a side of the result.

    Raises:
        TrainingError: the mask can't be read, has another size than its slice, or more than two values.
    """
    try:
        with Image.open(path) as mask:
            if mask.size != slice_size:
                raise TrainingError(f"{path}: the mask has {mask.size} pixels, its slice {slice_size}")
            values = np.asarray(mask if len(mask.getbands()) == 1 and mask.mode != "P" else mask.convert("L"))
    except OSError as error:
        raise TrainingError(f"{path}: can't read the mask: {error}") from error
    inside = Image.fromarray((_inside(values, path) * 255).astype(np.uint8))
    return np.asarray(inside.resize((size, size), Image.Resampling.BILINEAR)) > 127


def _inside(values: NDArray[np.generic], path: Path) -> NDArray[np.bool_]:
    levels = np.unique(values)
    if len(levels) > 2 and levels[-1] != _GREY_EDGES:
        shown = ", ".join(str(level) for level in levels[:4])
        raise TrainingError(
            f"{path}: a mask has two values, this one has {len(levels)} ({shown}{', ...' if len(levels) > 4 else ''}); "
            "write one file for each structure"
        )
    if len(levels) > 2:
        return np.asarray(values.astype(np.uint8) > _GREY_EDGES // 2)
    return np.asarray(values == levels[-1]) if levels[-1] else np.zeros(values.shape, np.bool_)
