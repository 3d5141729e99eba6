"""Groups slices into series in anatomical order, and reports unusual positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Final

import numpy as np

from service.imaging.series.geometry import VolumeGeometry
from service.imaging.series.place import Place

_SAME_DIRECTION: Final = 0.01
"""Largest difference between components of directions of one stack."""

_SAME_SPACING: Final = 0.01
"""Largest difference between pixel spacings of one stack, as a part of them."""

_SAME_POSITION: Final = 0.01
"""Distance in mm below which two slices lie at the same position."""

_GAP: Final = 1.5
"""Multiple of the usual spacing beyond which a slice is missing."""

_UNEVEN: Final = 0.1
"""Tolerated difference between distances, as a part of the usual spacing."""

_TILT_DEGREES: Final = 1.0
"""Angle between the stack's axis and the normal of its slices beyond which the gantry was tilted."""


class SeriesWarning(StrEnum):
    """Unusual property of a series; the series is read nevertheless."""

    NO_POSITIONS = "no_positions"
    DUPLICATE_POSITIONS = "duplicate_positions"
    GAPS = "gaps"
    MIXED_SPACING = "mixed_spacing"
    TILTED = "tilted"
    FEW_LUNGS = "few_lungs"


@dataclass(frozen=True, slots=True)
class Series:
    """A stack of parallel slices of one size.

    Attributes:
        slices: indices of its slices in the places that were grouped, from the feet to the head; without positions, in
            the order of names or numbers.
        duplicates: indices of slices at the position of another one, which are not in `slices`.
        geometry: None if a position, direction or pixel spacing is not known.
        warnings: by kind, a sentence with the figures.
    """

    slices: tuple[int, ...]
    duplicates: tuple[int, ...]
    geometry: VolumeGeometry | None
    warnings: dict[SeriesWarning, str]


def group_series(places: Sequence[Place]) -> list[Series]:
    """Group slices into series.

    A series has one UID, size and orientation. Where slices of different acquisitions lie at the same positions, each
    acquisition is a series.

    Args:
        places: of all slices of a study, in any order.

    Returns:
        The series in the order of their first slices in `places`.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, place in enumerate(places):
        is_dicom = place.source is not None  # its UIDs may be any text, such as the folder of a picture
        key = (place.series, is_dicom, place.rows, place.columns, place.turn, place.plane is None)
        groups.setdefault(key, []).append(index)
    stacks = sorted(stack for group in groups.values() for stack in _parallel(group, places))
    return [series for stack in stacks for series in _by_acquisition(stack, places)]


def _parallel(group: list[int], places: Sequence[Place]) -> list[list[int]]:
    """Split slices into stacks of those that have the direction and pixel spacing of the first one."""
    planes = [plane for index in group if (plane := places[index].plane)]
    if not planes:
        return [group]
    directions = np.array([plane.row_direction + plane.column_direction for plane in planes])
    spacings = np.array([plane.pixel_spacing for plane in planes])
    rest, stacks = np.arange(len(group)), []
    while len(rest):
        first = rest[0]
        is_same = (np.abs(directions[rest] - directions[first]) <= _SAME_DIRECTION).all(axis=1)
        is_same &= (np.abs(spacings[rest] - spacings[first]) <= _SAME_SPACING * spacings[first]).all(axis=1)
        is_same[0] = True  # also if it is not a number
        stacks.append([group[index] for index in rest[is_same]])
        rest = rest[~is_same]
    return stacks


def _by_acquisition(stack: list[int], places: Sequence[Place]) -> list[Series]:
    """Split a stack by AcquisitionNumber if that separates slices at the same positions, such as contrast phases."""
    parts: dict[int | None, list[int]] = {}
    for index in stack:
        parts.setdefault(places[index].acquisition, []).append(index)
    whole, pieces = _series(stack, places), [_series(part, places) for part in parts.values()]
    parted = sum(len(piece.duplicates) for piece in pieces) < len(whole.duplicates)
    return pieces if parted else [whole]


def _ordered(stack: list[int], places: Sequence[Place], geometry: VolumeGeometry) -> tuple[list[int], list[int]]:
    """Order slices along their normal; of several at one position the first by number is kept.

    Returns:
        Indices in order, and those of duplicates.
    """
    offsets = dict(zip(stack, geometry.offsets.tolist(), strict=True))
    kept: list[int] = []
    dropped: list[int] = []
    for index in sorted(stack, key=lambda index: (offsets[index], places[index].order)):
        if kept and offsets[index] - offsets[kept[-1]] < _SAME_POSITION:
            dropped.append(index)
        else:
            kept.append(index)
    return kept, dropped


def _geometry(indices: Sequence[int], places: Sequence[Place]) -> VolumeGeometry | None:
    planes = [plane for index in indices if (plane := places[index].plane)]
    if not planes:
        return None
    first = places[indices[0]]
    return VolumeGeometry(
        rows=first.rows,
        columns=first.columns,
        row_direction=np.array(planes[0].row_direction),
        column_direction=np.array(planes[0].column_direction),
        pixel_spacing=planes[0].pixel_spacing,
        positions=np.array([plane.position for plane in planes]),
        turn=first.turn,
        sources=tuple(source for index in indices if (source := places[index].source)),
    )


def _series(stack: list[int], places: Sequence[Place]) -> Series:
    unordered = _geometry(stack, places)
    if unordered is None:
        ordered = sorted(stack, key=lambda index: places[index].order)
        words = "The slices have no position, so no volume is known, and their order is that of numbers or names."
        return Series(tuple(ordered), (), None, {SeriesWarning.NO_POSITIONS: words})
    kept, dropped = _ordered(stack, places, unordered)
    geometry = _geometry(kept, places)
    warnings = {} if geometry is None else _unusual_positions(geometry)
    if dropped:
        words = f"Slices at the position of another one, which are not read: {len(dropped)}."
        warnings[SeriesWarning.DUPLICATE_POSITIONS] = words
    return Series(tuple(kept), tuple(dropped), geometry, warnings)


def _unusual_positions(geometry: VolumeGeometry) -> dict[SeriesWarning, str]:
    """Find gaps, mixed spacing and a tilted gantry."""
    usual = geometry.spacing
    if usual is None:
        return {}
    unusual: dict[SeriesWarning, str] = {}
    distances = np.diff(geometry.offsets)
    wide = distances > _GAP * usual
    uneven = np.abs(distances - usual) > _UNEVEN * usual
    if uneven.mean() > _UNEVEN:
        kinds = [f"{value:g} mm ({len(list(group))})" for value, group in groupby(np.sort(distances.round(1)).tolist())]
        unusual[SeriesWarning.MIXED_SPACING] = f"Distances between slices differ: {', '.join(kinds[:6])}."
    elif wide.any():
        unusual[SeriesWarning.GAPS] = (
            f"Neighbouring slices are more than the usual {usual:.1f} mm apart in {int(wide.sum())} of {len(wide)} "
            f"places, up to {distances.max():.1f} mm: slices may be missing."
        )
    step = geometry.positions[-1] - geometry.positions[0]
    cosine = abs(step @ geometry.normal) / np.linalg.norm(step)
    tilt = float(np.degrees(np.arccos(min(1.0, cosine))))
    if tilt > _TILT_DEGREES:
        unusual[SeriesWarning.TILTED] = f"The gantry was tilted by {tilt:.1f} degrees; volumes take it into account."
    return unusual
