"""Position of a stack of slices in the patient: volumes in ml, affines for NIfTI, source instances for DICOM."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from service.imaging.orientation import UPRIGHT, Turn


@final
@dataclass(frozen=True, slots=True)
class SourceFrame:
    """The DICOM frame that a slice was read from.

    Attributes:
        sop_class_uid, sop_instance_uid: of its instance.
        frame: number from 1 in a multi-frame instance; None in a single-frame one.
        header: a DICOM file of the elements that results refer to; empty unless headers are kept. The frames of one
            instance share one object.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None
    header: bytes = b""


@final
@dataclass(frozen=True, slots=True)
class VolumeGeometry:
    """Position of parallel slices in the patient, in mm; axes as in DICOM PS3.3 C.7.6.2: to the left, back and head.

    It describes the pixels as they are stored, not as the network sees them: `turn` is between the two.

    Attributes:
        rows, columns: size of a slice in pixels.
        row_direction: unit vector (3,) along a row, from column to column.
        column_direction: unit vector (3,) along a column, from row to row.
        pixel_spacing: distance between rows, and between columns.
        positions: float64 (N, 3), centre of the first pixel of each slice, in the order of the slices.
        turn: steps from the stored pixels to the upright slice, and so to the maps of its answer.
        sources: DICOM frame of each slice; empty if the slices came without DICOM headers.
    """

    rows: int
    columns: int
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    pixel_spacing: tuple[float, float]
    positions: NDArray[np.float64]
    turn: Turn = UPRIGHT
    sources: tuple[SourceFrame, ...] = ()

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector (3,) perpendicular to the slices, towards the head."""
        return normal_of(self.row_direction, self.column_direction)

    @property
    def offsets(self) -> NDArray[np.float64]:
        """Distance of each slice along the normal in mm, float64 (N,)."""
        return np.asarray(self.positions @ self.normal, dtype=np.float64)

    @property
    def spacing(self) -> float | None:
        """Median distance between neighbouring slices in mm; None for fewer than two."""
        gaps = np.abs(np.diff(self.offsets)).tolist()
        return statistics.median(gaps) if gaps else None  # np.median imports files that workers can't open

    @property
    def thicknesses(self) -> NDArray[np.float64]:
        """Thickness that each slice represents in mm, float64 (N,): half the distance to each neighbour.

        The outer slices extend as far outwards as inwards. A single slice has 0: its volume is not known.
        """
        gaps = np.abs(np.diff(self.offsets))
        if not len(gaps):
            return np.zeros(len(self.positions))
        return np.asarray((np.append(gaps[:1], gaps) + np.append(gaps, gaps[-1:])) / 2)

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in square mm."""
        return self.pixel_spacing[0] * self.pixel_spacing[1]

    @property
    def slice_area(self) -> float:
        """Area of a slice in square mm."""
        return self.rows * self.columns * self.pixel_area

    def select(self, indices: Sequence[int]) -> "VolumeGeometry":
        """Return the geometry of some of the slices."""
        sources = tuple(self.sources[index] for index in indices) if self.sources else ()
        return replace(self, positions=self.positions[list(indices)], sources=sources)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Matrix (4, 4) of NIfTI: from (column, row, slice) to mm towards the patient's right, front and head.

        Slices are taken as evenly spaced between the first and the last.
        """
        step = self.normal
        if len(self.positions) > 1:
            step = (self.positions[-1] - self.positions[0]) / (len(self.positions) - 1)
        matrix = np.eye(4)
        matrix[:3, 0] = self.row_direction * self.pixel_spacing[1]
        matrix[:3, 1] = self.column_direction * self.pixel_spacing[0]
        matrix[:3, 2] = step
        matrix[:3, 3] = self.positions[0]
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix

    def stored(self, upright: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn an upright array (..., height, width) back to the stored pixels' orientation (..., rows, columns)."""
        return self.turn.undo(upright)


def normal_of(row_direction: NDArray[np.float64], column_direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit vector (3,) perpendicular to a slice, towards the head."""
    normal = np.cross(row_direction, column_direction)
    return normal if normal[2] >= 0 else -normal
