"""Turns maps of the network into masks in the source's pixels: left lung, right lung, lesion."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from service.imaging.lung_borders import INSIDE
from service.imaging.overlay import enlarged
from service.imaging.series.geometry import VolumeGeometry


class Segment(IntEnum):
    """Segments by their number in a DICOM SEG, from 1; left and right are the patient's."""

    LEFT_LUNG = 1
    RIGHT_LUNG = 2
    LESION = 3


@dataclass(frozen=True, slots=True)
class SliceMaps:
    """Maps of one slice, upright: the patient's left is on the right.

    Attributes:
        lungs: float32 (h, w), probability of lung, 0 to 1.
        lesion: float32 (h, w), probability of lesion, 0 to 1.
        border: column of the maps, 0 to w, from which lung is the patient's left one; see `lung_borders`.
    """

    lungs: NDArray[np.float32]
    lesion: NDArray[np.float32]
    border: int


@dataclass(frozen=True, slots=True)
class SeriesMaps:
    """Maps of all slices of a series, enlarged to the source's pixels one slice at a time.

    Attributes:
        slices: in the order of the geometry; None for a slice without lungs.
        geometry: of the source.
    """

    slices: Sequence[SliceMaps | None]
    geometry: VolumeGeometry

    def probabilities(self, index: int) -> NDArray[np.float32]:
        """Return the probability of each segment as the source stores its pixels, float32 (3, rows, columns).

        The maps are enlarged bilinearly.
        """
        return np.asarray(self.geometry.stored(self._upright(index)), dtype=np.float32)

    def masks(self, index: int) -> NDArray[np.bool_]:
        """Return the pixels of each segment as the source stores them, bool (3, rows, columns).

        Lesion outside the lungs does not count.
        """
        masks = self._upright(index) >= INSIDE
        masks[2] &= masks[0] | masks[1]
        return np.asarray(self.geometry.stored(masks), dtype=np.bool_)

    def _upright(self, index: int) -> NDArray[np.float32]:
        height, width = self.geometry.rows, self.geometry.columns
        if self.geometry.turn.transpose:
            height, width = width, height
        maps = self.slices[index]
        if maps is None:
            return np.zeros((len(Segment), height, width), np.float32)
        lungs, lesion = (enlarged(values, (width, height)) for values in (maps.lungs, maps.lesion))
        is_left = np.arange(width) >= round(maps.border * width / maps.lungs.shape[1])
        return np.stack([lungs * is_left, lungs * ~is_left, lesion])


def interpolate(
    known: Sequence[SliceMaps | None], is_known: Sequence[bool], offsets: NDArray[np.float64]
) -> list[SliceMaps | None]:
    """Fill in the slices that were not read, linearly between the neighbours that were.

    Args:
        known: maps of each slice; None for a slice without lungs, and for one that was not read.
        is_known: whether a slice was read.
        offsets: distance of each slice along the normal in mm.

    Returns:
        Maps of each slice; None for a slice without lungs.
    """
    read = np.flatnonzero(is_known)
    filled = list(known)
    for index in np.flatnonzero(~np.asarray(is_known)):
        place = int(np.searchsorted(read, index))
        low, high = read[max(0, place - 1)], read[min(place, len(read) - 1)]
        reach = abs(offsets[high] - offsets[low])
        share = abs(offsets[index] - offsets[low]) / reach if reach > 0 else 0.0
        filled[index] = _between(known[low], known[high], min(1.0, share))
    return filled


def _between(low: SliceMaps | None, high: SliceMaps | None, share: float) -> SliceMaps | None:
    """Return the maps at a share of the way from one slice to the other."""
    if low is None and high is None:
        return None
    parts = [(maps, np.float32(weight)) for maps, weight in ((low, 1 - share), (high, share)) if maps is not None]
    nearest, _ = max(parts, key=lambda part: part[1])
    lungs = np.sum([weight * maps.lungs for maps, weight in parts], axis=0)
    lesion = np.sum([weight * maps.lesion for maps, weight in parts], axis=0)
    return SliceMaps(lungs, lesion, nearest.border)
