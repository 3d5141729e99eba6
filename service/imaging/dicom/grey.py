"""Maps stored samples of a CT frame to grey: mask, sign, Hounsfield units, window.

The grey of every possible sample is computed into a table, which is cheaper than arithmetic for every pixel.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ErrorCode, UnusableImageError, unsupported
from service.imaging.dicom.elements import functional_groups, items_of, malformed, numbers, text
from service.imaging.dicom.header import CONVERT_COLOUR, Header
from service.imaging.failures import decoding
from service.imaging.window import Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_KEPT_TABLES: Final = 8
"""Tables that a process keeps, of 64 KiB: the slices of a series share one, which costs a third of decoding a slice."""

_UNITS: Final = ("", "HU", "HU_MOD", "US")
"""Rescale types that mean Hounsfield units: none, plain, modified, and unspecified (PS3.3 C.11.1.1.2)."""


def grey_table(dataset: "Dataset", index: int, header: Header, window: Window) -> NDArray[np.uint8]:
    """Compute the grey of every possible sample.

    Args:
        dataset: the elements of the file.
        index: of the frame, which may have its own rescale.
        header: of the file; `signed` of the frame's stream.
        window: for Hounsfield units.

    Returns:
        uint8 (256,) or (65536,), indexed by the bits of a sample; it may be shared, so it must not be changed.

    Raises:
        UnusableImageError: an element that is needed is malformed, or a palette is coloured.
    """
    if header.photometric == "PALETTE COLOR":
        return _without_padding(_palette(dataset, header), header)
    if _has_table(dataset):
        return _without_padding(window.grey(_hounsfield(dataset, header)), header)
    return _rescaled(header, _rescale(dataset, index, header), window)


def has_hounsfield(dataset: "Dataset", index: int, header: Header) -> bool:
    """Whether the samples of a frame become Hounsfield units, so that a window applies; otherwise like `grey_table`."""
    if header.photometric == "PALETTE COLOR" or header.samples > 1:
        return False
    return _has_table(dataset) or _rescale(dataset, index, header) is not None


def _values(header: Header) -> NDArray[np.int64]:
    """Return the value of every possible sample."""
    values = np.arange(1 << header.bits, dtype=np.int64) >> header.shift & (1 << header.stored) - 1
    if header.signed:
        values -= (values >> header.stored - 1) << header.stored
    return values


@lru_cache(_KEPT_TABLES)
def _rescaled(header: Header, rescale: tuple[float, float] | None, window: Window) -> NDArray[np.uint8]:
    """Compute the table of slope and intercept, or of a picture without them, whose range becomes 0 to 255."""
    values = _values(header).astype(np.float64)
    if rescale is not None:  # Hounsfield units, in MONOCHROME1 too
        return _without_padding(window.grey(values * rescale[0] + rescale[1]), header)
    grey = Window((values.min() + values.max()) / 2, np.ptp(values)).grey(values)
    return _without_padding(255 - grey if header.photometric == "MONOCHROME1" else grey, header)


def _has_table(dataset: "Dataset") -> bool:
    tables = items_of(dataset, "ModalityLUTSequence")
    if tables:
        _check_unit(tables[0], "ModalityLUTType", "(0028,3004)")
    return bool(tables)


def _rescale(dataset: "Dataset", index: int, header: Header) -> tuple[float, float] | None:
    """Return slope and intercept of a frame or of the file; None for a picture, whose samples of 8 bits stay.

    An intercept without a slope has slope 1. A slope without an intercept is ignored.
    """
    for group in functional_groups(dataset, index, "PixelValueTransformationSequence"):
        intercepts = numbers(group, "RescaleIntercept")
        slopes = numbers(group, "RescaleSlope") or [1.0]
        for name, values in (("RescaleIntercept", intercepts), ("RescaleSlope", slopes)):
            if len(set(values)) > 1:
                raise malformed(name, f"has {len(values)} different values")
        if intercepts:
            _check_unit(group, "RescaleType", "(0028,1054)")
            if slopes[0] == 0:
                raise malformed("RescaleSlope", "is 0, so the rescale gives no Hounsfield units")
            is_identity = (slopes[0], intercepts[0]) == (1, 0)
            return None if header.stored <= 8 and is_identity else (slopes[0], intercepts[0])
    if header.stored > 8:
        raise _not_hounsfield(
            "has no RescaleSlope (0028,1053) and RescaleIntercept (0028,1052), so its samples have no known unit"
        )
    return None


def _check_unit(group: "Dataset", name: str, tag: str) -> None:
    """Refuse a rescale to another unit, such as the effective atomic number of a spectral scanner."""
    unit = text(group, name).upper()
    if unit not in _UNITS:
        shown = unit if re.fullmatch(r"[A-Z0-9_]{1,16}", unit) else "unknown"
        raise _not_hounsfield(f"has samples of the unit {shown}, by its {name} {tag}")


def _not_hounsfield(what: str) -> UnusableImageError:
    return UnusableImageError(
        f"The DICOM file {what}; the model reads Hounsfield units only. Send the original CT series.",
        code=ErrorCode.NOT_HOUNSFIELD,
    )


def _hounsfield(dataset: "Dataset", header: Header) -> NDArray[np.float64]:
    from pydicom.pixels.processing import apply_modality_lut

    with decoding("its element ModalityLUTSequence (0028,3000) can't be read"):
        return np.asarray(apply_modality_lut(_values(header), dataset), dtype=np.float64)


def _palette(dataset: "Dataset", header: Header) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    with decoding("its element RedPaletteColorLookupTableDescriptor (0028,1101) has no readable palette"):
        colours = np.asarray(apply_color_lut(_values(header), dataset))
    if not (colours == colours[:, :1]).all():
        raise unsupported(
            "The DICOM file has a coloured palette, which has no defined grey value; send the original series "
            "(MONOCHROME2), or a palette of greys.",
            CONVERT_COLOUR,
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    grey = colours[:, 0].astype(np.float64)
    if dataset.RedPaletteColorLookupTableDescriptor[2] == 16 and grey.max() > 255:  # 8 bits are often announced as 16
        grey = np.rint(grey * 255 / 65535)
    return grey.clip(0, 255).astype(np.uint8)


def _without_padding(grey: NDArray[np.uint8], header: Header) -> NDArray[np.uint8]:
    """Set padding to black. Its values in the header may have either sign, masked or not."""
    if header.padding is not None:
        values, samples = _values(header), 1 << header.bits
        low, high = sorted(_as_sample(end, values, samples) for end in header.padding)
        grey[(values >= low) & (values <= high)] = 0
        grey[header.padding[0] % samples] = 0
    return grey


def _as_sample(value: int, values: NDArray[np.int64], period: int) -> int:
    """Bring a value of the header into the range of the samples if it was read with the other sign."""
    return next((number for number in (value, value - period, value + period) if number in values), value)
