"""Orientation of a slice: the steps that bring it upright."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from service.errors import ErrorCode, UnusableImageError
from service.imaging.dicom_header import numbers, places

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_AXIAL: Final = 0.8
"""Cosine between the normal of a slice and the body's axis: 37 degrees; a gantry tilts up to 30."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Steps that turn a slice upright: the patient's front at the top, the patient's right on the left.

    Attributes:
        transpose: whether to exchange rows and columns; the first step.
        flip_rows, flip_columns: whether to reverse the order of rows and of columns.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        """Turn an array of shape (rows, columns)."""
        turned = grey.T if self.transpose else grey
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def undo(self, upright: np.ndarray) -> np.ndarray:
        """Turn an upright array of shape (..., rows, columns) back."""
        turned = upright[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return turned.swapaxes(-1, -2) if self.transpose else turned


def upright(dataset: "Dataset", index: int) -> Turn:
    """Read the orientation of a frame.

    Returns:
        The steps that turn it upright: none if it has no orientation.

    Raises:
        UnusableImageError: it is not axial.
    """
    for place in places(dataset, index, "PlaneOrientationSequence"):
        values = numbers(place, "ImageOrientationPatient")
        if len(values) != 6:
            continue
        row, column = np.array(values[:3]), np.array(values[3:])
        if np.abs([row @ row - 1, column @ column - 1, row @ column]).max() > 0.02:
            continue  # no directions
        if abs(np.cross(row, column)[2]) < _AXIAL:
            raise UnusableImageError(
                "The slice is not axial by its ImageOrientationPatient (0020,0037), and the model knows axial slices "
                "only; send an axial slice of the original series.",
                code=ErrorCode.NOT_AXIAL,
            )
        transpose = bool(abs(row[0]) < abs(row[1]))
        if transpose:
            row, column = column, row
        return Turn(transpose, bool(column[1] < 0), bool(row[0] < 0))
    return Turn()
