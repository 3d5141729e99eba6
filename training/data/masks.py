"""Masks: those that people drew, as image files, and lungs by classic segmentation."""

from pathlib import Path
from typing import Final, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

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
        TrainingError: the mask can't be read, has another size than its slice, more than two values, or one that is
            not 0.
    """
    try:
        with Image.open(path) as mask:
            if mask.size != slice_size:
                raise TrainingError(f"{path}: the mask has {mask.size} pixels, its slice {slice_size}")
            values = np.asarray(mask if len(mask.getbands()) == 1 and mask.mode != "P" else mask.convert("L"))
    except OSError as error:
        raise TrainingError(f"{path}: can't read the mask: {error.strerror or error}") from error
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
    if len(levels) == 1 and levels[0]:
        raise TrainingError(f"{path}: the mask is {levels[0]} everywhere; an empty mask is 0 everywhere")
    return np.asarray(values == levels[-1]) if levels[-1] else np.zeros(values.shape, np.bool_)


def segment_by_threshold(grey: NDArray[np.uint8]) -> Mask:
    """Segment air inside the body by Otsu's threshold (1979), with the holes of vessels filled.

    Args:
        grey: a slice (H, W).

    Returns:
        Lungs without their dense lesions: whole where lungs are clear.
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    threshold, _ = cv2.threshold(smooth, 0, 255, cv2.THRESH_OTSU)
    regions, _ = ndimage.label(smooth <= threshold)
    edges = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    border = set(np.unique(edges).tolist())
    lung = np.zeros(grey.shape, np.bool_)
    for number, place in enumerate(ndimage.find_objects(regions), 1):
        inside = regions == number
        if number not in border and (regions[place] == number).sum() > 0.004 * grey.size and grey[inside].mean() < 110:
            lung |= inside
    closed = cv2.morphologyEx(
        lung.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    )
    return cast(Mask, ndimage.binary_fill_holes(closed > 0))
