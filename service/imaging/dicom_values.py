"""Maps stored samples of a CT frame to grey: mask, sign, Hounsfield units, window.

The grey of every possible sample is computed into a table, which is cheaper than arithmetic for every pixel.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ErrorCode, UnusableImageError, malformed_element, unsupported
from service.imaging.dicom_checks import CONVERT_COLOUR, Header
from service.imaging.dicom_header import items_of, numbers
from service.imaging.window import Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_IDENTITY: Final = (1.0, 0.0)

_KEPT_TABLES: Final = 8
"""Tables that a process keeps, of 64 KiB: the slices of a series share one, which costs a third of decoding a slice."""

_UNITS: Final = ("", "HU", "HU_MOD", "US")
"""Rescale types that mean Hounsfield units: none, plain, modified, and unspecified (PS3.3 C.11.1.1.2)."""


def grey_table(
    dataset: "Dataset", groups: list["Dataset"], header: Header, signed: bool, window: Window
) -> NDArray[np.uint8]:
    """Compute the grey of every possible sample.

    Args:
        dataset: the elements of the file.
        groups: the functional groups of the frame, in which a rescale may be.
        header: of the file.
        signed: whether the samples of the frame are two's complement.
        window: for Hounsfield units.

    Returns:
        uint8 (256,) or (65536,), indexed by the bits of a sample; it may be shared, so it must not be changed.

    Raises:
        UnusableImageError: an element that is needed is malformed, or a palette is coloured.
    """
    samples = _Samples(header.bits, header.stored, header.shift, signed)
    padding = _padding_of(dataset)
    if header.photometric == "PALETTE COLOR":
        return samples.without_padding(_palette(samples.values(), dataset), padding)
    if not has_hounsfield(dataset, groups, header):
        return _picture_table(samples, header.photometric == "MONOCHROME1", padding)
    if dataset.get("ModalityLUTSequence"):
        return samples.without_padding(window.grey(_hounsfield(samples.values(), dataset)), padding)
    return _rescaled_table(samples, _rescale(dataset, groups) or _IDENTITY, window, padding)


def has_hounsfield(dataset: "Dataset", groups: list["Dataset"], header: Header) -> bool:
    """Whether the samples of a frame become Hounsfield units, so that a window applies; arguments as in `grey_table`.

    Raises:
        UnusableImageError: the rescale is malformed, missing for samples beyond 8 bits, or to another unit.
    """
    if header.photometric == "PALETTE COLOR" or header.samples > 1:
        return False
    for table in items_of(dataset, "ModalityLUTSequence")[:1]:
        _check_unit("ModalityLUTType (0028,3004)", table.get("ModalityLUTType"))
        return True
    rescale = _rescale(dataset, groups)
    if rescale is None and header.stored > 8:
        raise _not_hounsfield(
            "has no RescaleSlope (0028,1053) and RescaleIntercept (0028,1052), so its samples have no known unit"
        )
    return rescale is not None and not (header.stored <= 8 and rescale == _IDENTITY)


@dataclass(frozen=True, slots=True)
class _Samples:
    """Layout of the stored samples."""

    bits: int
    stored: int
    shift: int
    signed: bool

    def values(self) -> NDArray[np.int64]:
        """Return the value of every possible sample."""
        values = np.arange(1 << self.bits, dtype=np.int64) >> self.shift & (1 << self.stored) - 1
        if self.signed:
            values -= (values >> self.stored - 1) << self.stored
        return values

    def without_padding(self, grey: NDArray[np.uint8], padding: tuple[int, int] | None) -> NDArray[np.uint8]:
        """Set the samples between two padding values to black. The values may have either sign, masked or not."""
        if padding is not None:
            raw, values = np.arange(1 << self.bits, dtype=np.int64), self.values()
            low, high = sorted(_as_sample(end, values, 1 << self.bits) for end in padding)
            grey[(raw == padding[0] % (1 << self.bits)) | ((values >= low) & (values <= high))] = 0
        return grey


@lru_cache(_KEPT_TABLES)
def _rescaled_table(
    samples: _Samples, rescale: tuple[float, float], window: Window, padding: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Compute the table of slope and intercept; these are Hounsfield units in MONOCHROME1 too."""
    slope, intercept = rescale
    grey = window.grey(samples.values().astype(np.float64) * slope + intercept)
    return samples.without_padding(grey, padding)


@lru_cache(_KEPT_TABLES)
def _picture_table(samples: _Samples, is_inverted: bool, padding: tuple[int, int] | None) -> NDArray[np.uint8]:
    values = samples.values()
    low, high = int(values.min()), int(values.max())
    grey = Window((low + high) / 2, high - low).grey(values.astype(np.float64))
    return samples.without_padding(255 - grey if is_inverted else grey, padding)


def _rescale(dataset: "Dataset", groups: list["Dataset"]) -> tuple[float, float] | None:
    """Return slope and intercept from the groups of the frame, or else from the file.

    An intercept without a slope has slope 1. A slope without an intercept is ignored.
    """
    for place in (*groups, dataset):
        intercepts = numbers(place, "RescaleIntercept", 0x00281052)
        slopes = numbers(place, "RescaleSlope", 0x00281053) or [1.0]
        for name, tag, values in (("RescaleIntercept", 0x00281052, intercepts), ("RescaleSlope", 0x00281053, slopes)):
            if len(set(values)) > 1:
                raise malformed_element(name, tag, f"has {len(values)} different values")
        if not intercepts:
            continue
        _check_unit("RescaleType (0028,1054)", place.get("RescaleType"))
        if slopes[0] == 0:
            raise malformed_element("RescaleSlope", 0x00281053, "is 0, so the rescale gives no Hounsfield units")
        return slopes[0], intercepts[0]
    return None


def _check_unit(element: str, kind: object) -> None:
    """Refuse a rescale to another unit, such as the effective atomic number of a spectral scanner."""
    name = str(kind or "").strip(" \0").upper()
    if name not in _UNITS:
        shown = name if re.fullmatch(r"[A-Z0-9_]{1,16}", name) else "unknown"
        raise _not_hounsfield(f"has samples of the unit {shown}, by its {element}")


def _not_hounsfield(what: str) -> UnusableImageError:
    return UnusableImageError(
        f"The DICOM file {what}; the model reads Hounsfield units only. Send the original CT series.",
        code=ErrorCode.NOT_HOUNSFIELD,
    )


def _hounsfield(values: NDArray[np.int64], dataset: "Dataset") -> NDArray[np.float64]:
    from pydicom.pixels.processing import apply_modality_lut

    try:
        return np.asarray(apply_modality_lut(values, dataset), dtype=np.float64)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything on a malformed sequence, and may quote it
        raise malformed_element("ModalityLUTSequence", 0x00283000, "can't be read") from None


def _palette(values: NDArray[np.int64], dataset: "Dataset") -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    try:
        colours: NDArray[Any] = np.asarray(apply_color_lut(values, dataset))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as above
        raise malformed_element("RedPaletteColorLookupTableDescriptor", 0x00281101, "has no readable palette") from None
    if not (colours == colours[:, :1]).all():
        raise unsupported(
            "The DICOM file has a coloured palette, which has no defined grey value; send the original series "
            "(MONOCHROME2), or a palette of greys.",
            CONVERT_COLOUR,
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    depth = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    grey = colours[:, 0].astype(np.float64)
    if depth == 16 and grey.max() > 255:  # entries of 8 bits are often announced as 16
        grey = np.rint(grey * 255 / 65535)
    return grey.clip(0, 255).astype(np.uint8)


def _padding_of(dataset: "Dataset") -> tuple[int, int] | None:
    """Return first and last padding value of the header; None if it has none."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    return value, limit if isinstance(limit, int) else value


def _as_sample(value: int, values: NDArray[np.int64], period: int) -> int:
    """Bring a value of the header into the range of the samples if it was read with the other sign."""
    low, high = values.min(), values.max()
    return next((number for number in (value, value - period, value + period) if low <= number <= high), value)
