"""Place of a slice: the series and stack it belongs to, and its position in the patient."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.imaging.dicom.elements import functional_groups, numbers, text
from service.imaging.dicom.file import DicomFile
from service.imaging.orientation import UPRIGHT, Turn, upright
from service.imaging.series.geometry import SourceFrame, normal_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Vector: TypeAlias = tuple[float, float, float]

MOST_MM: Final = 1e6
"""Positions and distances from here on are damage: a kilometre."""

_MOST: Final = 2**63
"""Larger whole numbers are damage; an integer string has at most 12 characters."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Position of a slice in the patient, in mm to the left, back and head.

    Attributes:
        position: centre of the first stored pixel.
        row_direction, column_direction: unit vectors along a row and along a column.
        pixel_spacing: distance between rows, and between columns.
    """

    position: Vector
    row_direction: Vector
    column_direction: Vector
    pixel_spacing: tuple[float, float]

    @property
    def offset(self) -> float:
        """Distance of the slice along its normal in mm, towards the head."""
        return float(np.dot(self.position, normal_of(np.array(self.row_direction), np.array(self.column_direction))))


@dataclass(frozen=True, slots=True)
class Place:
    """Place of one slice.

    Attributes:
        series: identity of the series within a study; UIDs of a DICOM file, the folder of a picture, a NIfTI file.
        rows, columns: size of the stored slice in pixels.
        order: position by name or number, for slices without a plane.
        acquisition: AcquisitionNumber, if the file has it.
        plane: None if a part of it is missing or malformed.
        turn: steps from the stored pixels to the upright slice.
        source: its DICOM frame; None for other files.
    """

    series: tuple[str, ...]
    rows: int
    columns: int
    order: tuple[float | str, ...] = ()
    acquisition: int | None = None
    plane: Plane | None = None
    turn: Turn = UPRIGHT
    source: SourceFrame | None = None


def place_of_frame(file: DicomFile, index: int, source_header: bytes = b"") -> Place:
    """Read the place of a frame of a DICOM file.

    Args:
        file: opened.
        index: of the frame, from 0.
        source_header: see `SourceFrame.header`.

    Raises:
        UnusableImageError: the frame is a localizer, or not axial.
    """
    dataset, header = file.dataset, file.header
    axes = file.axes(index)
    return Place(
        series=(text(dataset, "StudyInstanceUID"), text(dataset, "SeriesInstanceUID")),
        rows=header.rows,
        columns=header.columns,
        order=(_whole(dataset, "InstanceNumber") or 0, index),
        acquisition=_whole(dataset, "AcquisitionNumber"),
        plane=None if axes is None else _plane(dataset, index, axes),
        turn=upright(axes),
        source=SourceFrame(
            text(dataset, "SOPClassUID"),
            text(dataset, "SOPInstanceUID"),
            index + 1 if header.frames > 1 else None,
            source_header,
        ),
    )


def slice_thickness(file: DicomFile) -> float | None:
    """Read the SliceThickness of the first frame in mm, which may differ from the distance between slices."""
    thickness = _numbers(file.dataset, 0, "PixelMeasuresSequence", "SliceThickness", 1)
    return None if thickness is None else thickness[0]


def _plane(dataset: "Dataset", index: int, axes: NDArray[np.float64]) -> Plane | None:
    position = _numbers(dataset, index, "PlanePositionSequence", "ImagePositionPatient", 3)
    spacing = _numbers(dataset, index, "PixelMeasuresSequence", "PixelSpacing", 2)
    if position is None or spacing is None or min(spacing) <= 0 or max(map(abs, position + spacing)) > MOST_MM:
        return None
    row, column = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    x, y, z = position
    return Plane((x, y, z), vector(row), vector(column), (spacing[0], spacing[1]))


def _numbers(dataset: "Dataset", index: int, sequence: str, name: str, count: int) -> tuple[float, ...] | None:
    for group in functional_groups(dataset, index, sequence):
        with suppress(ServiceError):  # malformed: the slice is read, and its place is not known
            values = numbers(group, name)
            if len(values) == count:
                return tuple(values)
    return None


def vector(values: np.ndarray) -> Vector:
    """Return three numbers as a tuple."""
    x, y, z = values.tolist()
    return x, y, z


def _whole(dataset: "Dataset", name: str) -> int | None:
    try:
        number = int(dataset.get(name))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < _MOST else None
