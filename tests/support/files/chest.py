"""A drawn chest in the patient's coordinates, in mm: an elliptic body, two lungs, a ball of lesion in the left one."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

BALL: Final = np.array([60.0, 12.0, 150.0])
RADIUS: Final = 30.0

LUNGS: Final = {"left": np.array([60.0, 0.0, 150.0]), "right": np.array([-60.0, 0.0, 150.0])}
"""Centres of the lungs, which are elliptic cylinders along the body."""

_LUNG_RADII: Final = np.array([45.0, 70.0])
_LUNG_HEIGHT: Final = 300.0

BALL_ML: Final = 4 / 3 * np.pi * RADIUS**3 / 1000
LUNG_ML: Final = np.pi * float(_LUNG_RADII.prod()) * _LUNG_HEIGHT / 1000


def in_lungs(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points (..., 3) are in a lung, the ball included."""
    sections = [(((points - centre)[..., :2] / _LUNG_RADII) ** 2).sum(-1) < 1 for centre in LUNGS.values()]
    return np.asarray(np.any(sections, axis=0) & (abs(points[..., 2] - LUNGS["left"][2]) < _LUNG_HEIGHT / 2))


def in_ball(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points (..., 3) are in the ball."""
    return np.asarray(((points - BALL) ** 2).sum(-1) < RADIUS**2)


def hounsfield(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hounsfield units at points (..., 3)."""
    in_body = (points[..., 0] / 140) ** 2 + (points[..., 1] / 100) ** 2 < 1
    return np.select([in_ball(points), in_lungs(points), in_body], [-200.0, -800.0, 40.0], -1000.0)


def pixel_places(
    first: ArrayLike, row: ArrayLike, column: ArrayLike, shape: tuple[int, int], spacing: float
) -> NDArray[np.float64]:
    """Places of the pixels of a slice, (rows, columns, 3), from that of the first one and directions of unit length."""
    rows, columns = np.mgrid[: shape[0], : shape[1]][..., np.newaxis] * spacing
    return np.asarray(np.asarray(first) + rows * np.asarray(column) + columns * np.asarray(row))
