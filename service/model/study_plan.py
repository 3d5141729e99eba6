"""Plan of a study: its slices grouped into series, and the choice of those that are read."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from service.errors import ErrorCode, ServiceError, UnusableImageError
from service.imaging.series.grouping import Series, group_series
from service.model.study import NotASlice, SeriesSlice, Study, StudySeries

EVERY_MM: Final = 5.0
"""Distance between the slices that are read of a thin series. Reading every second slice of series with 6 mm between
their slices, so every 12 mm, moved involvement by 0.7 points at most; docs/experiments.md."""

THIN_MM: Final = 2.5
"""Series with less than this between their slices are thin: not every slice is read unless asked."""

_MOST_REASONS: Final = 3
"""Most frequent reasons in the error of a study without a slice, each with the sentence of its first file."""


def thin_mm(every_mm: float | None) -> float:
    """Return the distance below which slices are decoded only once it is known which of them are read."""
    return THIN_MM if every_mm is None else every_mm


def plan_study(slices: Sequence[SeriesSlice], others: Sequence[NotASlice], every_mm: float | None = None) -> Study:
    """Group slices into series, and choose those to read.

    Args:
        slices: in the order of their files.
        others: files without a slice.
        every_mm: distance between the slices that are read; 0 reads every slice; None: `EVERY_MM` in thin series.

    Raises:
        UnusableImageError: there is no slice.
    """
    if not slices:
        raise _no_slices(others)
    stacks = group_series([slice_.image.place for slice_ in slices])
    duplicates = [_duplicate(slices[index]) for stack in stacks for index in stack.duplicates]
    series = [
        StudySeries(
            slices=[slices[index] for index in stack.slices],
            wanted=_from_the_middle(_wanted(stack, every_mm), len(stack.slices)),
            geometry=stack.geometry,
            position_warnings=stack.warnings,
        )
        for stack in stacks
    ]
    return Study(series, sorted([*others, *duplicates], key=lambda other: other.file))


def _no_slices(others: Sequence[NotASlice]) -> UnusableImageError:
    details = {other.error.code: other.error.detail for other in reversed(others)}
    counts = Counter(other.error.code for other in others)
    reasons = [
        details[code] if len(others) == 1 else f"{count} of {len(others)} files: {details[code]}"
        for code, count in counts.most_common(_MOST_REASONS)
    ]
    advice = "No file is an axial CT slice; send DICOM files, NIfTI, pictures or a zip of a CT series."
    return UnusableImageError(" ".join([advice, *reasons]), code=ErrorCode.NO_SLICES, title="No slices")


def _duplicate(slice_: SeriesSlice) -> NotASlice:
    detail = "The slice lies at the position of another one of its series."
    return NotASlice(slice_.file, slice_.name, ServiceError(detail, code=ErrorCode.DUPLICATE_POSITION))


def _wanted(stack: Series, every_mm: float | None) -> list[int]:
    """Choose slices at least `every_mm` apart, with half a slice of tolerance."""
    spacing = None if stack.geometry is None else stack.geometry.spacing
    if every_mm is None and spacing is not None:
        every_mm = EVERY_MM if spacing < THIN_MM else 0.0
    if stack.geometry is None or not spacing or not every_mm:
        return list(range(len(stack.slices)))
    offsets = stack.geometry.offsets.tolist()
    wanted = [0]
    for index in range(1, len(offsets)):
        if offsets[index] - offsets[wanted[-1]] >= every_mm - spacing / 2:
            wanted.append(index)
    return wanted


def _from_the_middle(indices: Sequence[int], count: int) -> list[int]:
    """Sort indices of `count` slices from the middle outwards: the lungs are in the middle."""
    return sorted(indices, key=lambda index: abs(index - (count - 1) / 2))
