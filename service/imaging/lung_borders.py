"""The column between the lungs in each slice of a series."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

INSIDE: Final = 0.5
"""Probability from which a cell of a map is inside lung or lesion."""

_MIDDLE: Final = 0.25
"""Share of the lungs' width, around its middle, in which the border between the lungs is searched."""


def lung_borders(lungs: Sequence[NDArray[np.float32]]) -> list[int]:
    """Find the column between the lungs in each slice of a series.

    The lungs of all slices have one middle. Near it, the border of a slice is the column with the least lung, so a lung
    that reaches over the middle is not cut, and a slice with one lung has it on its side.

    Args:
        lungs: for each slice float32 (h, w), probability of lung, all of one size.

    Returns:
        For each slice a column, 0 to w; lung from there on is on the right of the picture.
    """
    columns = np.array([(probability >= INSIDE).sum(axis=0) for probability in lungs])
    with_lung = np.flatnonzero(columns.any(axis=0))
    if not len(with_lung):
        return [columns.shape[1] // 2] * len(columns)
    middle = (with_lung[0] + with_lung[-1] + 1) / 2
    reach = _MIDDLE / 2 * (with_lung[-1] + 1 - with_lung[0])
    near = np.flatnonzero(np.abs(np.arange(columns.shape[1]) + 0.5 - middle) <= max(reach, 0.5))
    distance = np.abs(near + 0.5 - middle)
    least = [near[np.lexsort((distance, counts[near]))[0]] for counts in columns]
    return [int(column) + int(column + 0.5 < middle) for column in least]
