"""Maps of the network to masks of the source's pixels: left lung, right lung, lesion."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from service.imaging.overlay import enlarged

if TYPE_CHECKING:
    from service.imaging.series.geometry import VolumeGeometry

INSIDE: Final = 0.5
"""Probability from which a pixel belongs to a segment, as in the lung involvement of the network."""

_MIDDLE: Final = 0.25
"""Share of the lungs' width, around its middle, in which the border between the lungs is searched."""


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
        border: column of the maps, 0 to w, from which lung is the patient's left one.
    """

    lungs: NDArray[np.float32]
    lesion: NDArray[np.float32]
    border: int

    def probabilities(self, height: int, width: int) -> NDArray[np.float32]:
        """Enlarge the maps, bilinear: float32 (3, height, width) from 0 to 1, in the order of `Segment`."""
        lungs, lesion = (enlarged(each, (width, height)) for each in (self.lungs, self.lesion))
        left = np.arange(width) >= round(self.border * width / self.lungs.shape[1])
        return np.stack([lungs * left, lungs * ~left, lesion])

    def masks(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the pixels of each segment, bool (3, height, width); lesion outside the lungs does not count."""
        masks = self.probabilities(height, width) >= INSIDE
        masks[2] &= masks[0] | masks[1]
        return masks


def lung_borders(lungs: Sequence[NDArray[np.float32]]) -> list[int]:
    """Find the column between the lungs in each slice of a series.

    The lungs of all slices have one middle. Near it, the border of a slice is the column with the least lung, so a lung
    that reaches over the middle is not cut, and a slice with one lung has it on its side.

    Args:
        lungs: for each slice float32 (h, w), probability of lung, all of one size.

    Returns:
        For each slice a column, 0 to w; lung from there on is on the right of the picture.
    """
    columns = np.array([(each >= INSIDE).sum(axis=0) for each in lungs])
    found = np.flatnonzero(columns.any(axis=0))
    if not len(found):
        return [columns.shape[1] // 2] * len(columns)
    middle = (found[0] + found[-1] + 1) / 2
    reach = _MIDDLE / 2 * (found[-1] + 1 - found[0])
    near = np.flatnonzero(np.abs(np.arange(columns.shape[1]) + 0.5 - middle) <= max(reach, 0.5))
    distance = np.abs(near + 0.5 - middle)
    least = [near[np.lexsort((distance, counts[near]))[0]] for counts in columns]
    return [int(column) + int(column + 0.5 < middle) for column in least]


def stored_masks(maps: SliceMaps, geometry: "VolumeGeometry") -> NDArray[np.bool_]:
    """Return the pixels of each segment as the source stores them, bool (3, rows, columns)."""
    return geometry.stored(maps.masks(*_upright_size(geometry))).astype(np.bool_, copy=False)


def stored_probabilities(maps: SliceMaps, geometry: "VolumeGeometry") -> NDArray[np.float32]:
    """Return the probability of each segment as the source stores its pixels, float32 (3, rows, columns)."""
    return geometry.stored(maps.probabilities(*_upright_size(geometry))).astype(np.float32, copy=False)


def _upright_size(geometry: "VolumeGeometry") -> tuple[int, int]:
    """Return height and width of a slice after its turn."""
    size = geometry.rows, geometry.columns
    return size[::-1] if geometry.turn.transpose else size
