"""Lungs by classic segmentation: no network, so it can supervise and judge networks."""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.masks import Mask


def segment_by_threshold(grey: NDArray[np.uint8], *, may_touch_edges: bool = False) -> Mask:
    """Segment air inside the body by Otsu's threshold (1979), with the holes of vessels filled.

    Args:
        grey: a slice (H, W).
        may_touch_edges: take only the air of the corners for outside air, for slices that were cut to the lungs.

    Returns:
        Lungs without their dense lesions: whole where lungs are clear.
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    threshold, _ = cv2.threshold(smooth, 0, 255, cv2.THRESH_OTSU)
    regions, _ = ndimage.label(smooth <= threshold)
    corners = regions[[0, 0, -1, -1], [0, -1, 0, -1]]
    edges = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    border = set(np.unique(corners if may_touch_edges else edges).tolist())
    lung = np.zeros(grey.shape, np.bool_)
    for number, place in enumerate(ndimage.find_objects(regions), 1):
        inside = regions == number
        if number not in border and (regions[place] == number).sum() > 0.004 * grey.size and grey[inside].mean() < 110:
            lung |= inside
    closed = cv2.morphologyEx(
        lung.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    )
    return cast(Mask, ndimage.binary_fill_holes(closed > 0))


def segment_with_lesions(grey: NDArray[np.uint8]) -> Mask:
    """Segment lungs, and close each region over the dense lesions and vessels at its border by its convex hull.

    The hulls of both lungs together hold much of the heart's edge, so this is a generous lung: for asking whether a
    place lies inside a lung, not for measuring one.
    """
    regions, count = ndimage.label(segment_by_threshold(grey, may_touch_edges=True))
    lung = np.zeros(grey.shape, np.uint8)
    for number in range(1, count + 1):
        points = cv2.findNonZero((regions == number).astype(np.uint8))
        cv2.fillConvexPoly(lung, cv2.convexHull(points), (1,))
    return lung > 0
