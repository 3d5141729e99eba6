"""Reads elements of a DICOM header. A malformed value is refused with an UnusableImageError that names the element."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import UnusableImageError, damaged_image, malformed_element

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_ROUNDING: Final = 0.02
"""Largest difference from 1 and 0 of the products of two directions, which are perpendicular unit vectors."""


def functional_groups(dataset: "Dataset", index: int, name: str) -> list["Dataset"]:
    """List where an element of a frame may be: its functional group, the shared one (PS3.3 C.7.6.16), or the file."""
    groups: list[Dataset] = []
    for sequence, at in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        for item in items_of(dataset, sequence)[at : at + 1]:
            groups.extend(items_of(item, name)[:1])
    return [*groups, dataset]


def items_of(dataset: "Dataset", name: str) -> Sequence["Dataset"]:
    """List the items of a sequence; an absent or empty one has none."""
    from pydicom.sequence import Sequence as Items

    value = dataset.get(name) or Items()
    if not isinstance(value, Items):
        raise damaged_image(f"its {name} is not a sequence")
    return value


def numbers(dataset: "Dataset", name: str) -> list[float]:
    """Read the decimal strings of an element, with points or commas; an absent or empty element gives an empty list."""
    element: Any = dataset.get_item(name)
    value = "" if element is None or element.value is None else element.value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    parts = [part.strip(" \0") for part in text.replace(",", ".").split("\\")]
    try:
        values = [float(part) for part in parts if part]
    except ValueError:
        raise malformed(name, "is not a number") from None
    if not all(map(math.isfinite, values)):
        raise malformed(name, "is not a finite number")
    return values


def directions(dataset: "Dataset", index: int) -> NDArray[np.float64] | None:
    """Read the directions of a frame along a row and along a column, (2, 3); None if it has no valid ones."""
    for group in functional_groups(dataset, index, "PlaneOrientationSequence"):
        values = numbers(group, "ImageOrientationPatient")
        if len(values) == 6:
            axes = np.array(values).reshape(2, 3)
            if np.abs(axes @ axes.T - np.eye(2)).max() <= _ROUNDING:
                return axes
    return None


def texts(dataset: "Dataset", name: str) -> list[str]:
    """List the values of an element as text, whatever its kind."""
    value = dataset.get(name)
    parts = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return [str(part) for part in parts if part is not None]


def text(dataset: "Dataset", name: str) -> str:
    """Read an element as text without padding; empty if it is absent."""
    return str(dataset.get(name) or "").strip(" \0")


def malformed(name: str, what: str) -> UnusableImageError:
    """Build the refusal of a file for one element of its header; `what` completes "Its element ... "."""
    from pydicom.datadict import tag_for_keyword

    return malformed_element(name, tag_for_keyword(name) or 0, what)
