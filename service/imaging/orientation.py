"""Orientation of a slice: the steps that bring it upright."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ErrorCode, UnusableImageError

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


UPRIGHT: Final = Turn()
"""Slices that are stored upright."""


def upright(directions: NDArray[np.float64] | None) -> Turn:
    """Return the steps that turn a slice upright: none if its directions are not known.

    Args:
        directions: unit vectors (2, 3) along a row and along a column, to the patient's left, back and head.

    Raises:
        UnusableImageError: it is not axial.
    """
    if directions is None:
        return UPRIGHT
    row, column = directions
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
