"""Slices shown in another window than the stored one, within the limits of their grey values."""

from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Grey: TypeAlias = NDArray[np.float32]
"""Grey values 0 to 1, (H, W)."""

_LUNG: Final = -870.0
_TISSUE: Final = 50.0
"""Hounsfield units of the darker half of a lung, and of the brighter half of all else."""

_CLIPPED: Final = 0.98
"""Smallest grey that may be clipped by the window."""

_BONE: Final = 900.0
"""Largest Hounsfield units of bone above the end of the window."""

_ROUNDING: Final = 1e-4


def as_grey(picture: NDArray[np.uint8]) -> Grey:
    """Convert bytes to grey values from 0 to 1, float32 of the same shape."""
    return picture.astype(np.float32) / np.float32(255)


def estimate_hounsfield(grey: Grey, lung: NDArray[np.floating]) -> Grey:
    """Estimate Hounsfield units from lung and tissue, for a slice stored in any window: float32 (H, W).

    Values clipped by the window stay clipped; lung and tissue lie inside a lung window.
    """
    height, width = grey.shape
    share = cv2.resize(lung.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    inside, outside = grey[share > 0.5], grey[share < 0.2]
    dark = float(inside[inside <= inside.mean() + _ROUNDING].mean()) if inside.size else 0.0
    bright = float(outside[outside >= outside.mean() - _ROUNDING].mean()) if outside.size else 1.0
    scale = (_TISSUE - _LUNG) / max(0.1, bright - dark)
    return np.asarray(_LUNG + (grey - dark) * scale, np.float32)


def show(hounsfield: Grey, window: tuple[float, float]) -> Grey:
    """Show Hounsfield units in a window of this centre and width: float32 of the same shape, 0 to 1."""
    return np.asarray(np.clip((hounsfield - window[0]) / window[1] + 0.5, 0, 1), np.float32)


def with_bone(hounsfield: Grey, grey: Grey, rng: np.random.Generator) -> Grey:
    """Draw bone where the window clipped a slice to white: float32 (H, W)."""
    noise = cv2.GaussianBlur(rng.random(grey.shape, np.float32), (0, 0), 3)
    spread = (noise - noise.min()) / max(1e-6, float(np.ptp(noise)))
    return np.asarray(hounsfield + (grey > _CLIPPED) * spread * rng.uniform(0, _BONE), np.float32)
