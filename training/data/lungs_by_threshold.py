"""Lungs by classic segmentation, which supervises the lung finder on clear slices."""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.masks import Mask


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
