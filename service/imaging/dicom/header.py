"""Description of the pixels by the DICOM header, read and checked before decoding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.errors import ErrorCode, damaged_image, unsupported
from service.imaging.dicom.elements import malformed, text
from service.imaging.window import LUNG

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CONVERT_COLOUR: Final = "dcmj2pnm +on in.dcm out.png"
_CONVERT_DEPTH: Final = f"dcmj2pnm +on +Ww {LUNG.centre:g} {LUNG.width:g} in.dcm out.png"
"""With the lung window."""

_GREYS: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOURS: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True, slots=True)
class Header:
    """Description of the pixels."""

    syntax: str
    rows: int
    columns: int
    frames: int
    samples: int  # of a pixel: 1 for grey, 3 for colour
    bits: int  # of a sample in memory: 8 or 16
    stored: int  # number of these bits that are used
    shift: int  # number of unused bits below them
    signed: bool
    photometric: str
    planar: bool  # whether colour planes are stored one after another
    padding: tuple[int, int] | None  # first and last value of pixels outside of the image


def read_header(dataset: "Dataset", syntax: str) -> Header:
    """Read and check the description of the pixels.

    Raises:
        UnusableImageError: an element is missing or malformed, or the pixels are of an unsupported kind.
    """
    bits = _whole(dataset, "BitsAllocated")
    stored = _whole(dataset, "BitsStored", bits)
    high = _whole(dataset, "HighBit", stored - 1)
    samples = _whole(dataset, "SamplesPerPixel", 1)
    photometric = text(dataset, "PhotometricInterpretation") or ("MONOCHROME2" if samples == 1 else "RGB")
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    frames = _whole(dataset, "NumberOfFrames", 1) or 1  # some writers say 0
    if bits not in (8, 16) or stored < 1:
        raise unsupported(
            f"The DICOM file has {stored} bits in samples of {bits}; samples of 8 or 16 bits are read.",
            _CONVERT_DEPTH,
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    if not stored - 1 <= high < bits:
        raise malformed("HighBit", f"is {high}, with {stored} bits stored in {bits}")
    if photometric not in {1: _GREYS, 3: _COLOURS}.get(samples, ()) or (samples == 3 and bits != 8):
        raise unsupported(
            f"The DICOM file has {samples} samples a pixel, of {bits} bits, in an unsupported colour model; send grey "
            "(MONOCHROME1 or 2) or 8-bit RGB.",
            CONVERT_COLOUR,
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    if min(rows, columns, frames) < 1:
        raise damaged_image(f"it announces {frames} frames of {columns} x {rows} pixels")
    return Header(
        syntax=syntax,
        rows=rows,
        columns=columns,
        frames=frames,
        samples=samples,
        bits=bits,
        stored=stored,
        shift=high + 1 - stored,
        signed=_whole(dataset, "PixelRepresentation", 0) == 1,
        photometric=photometric,
        planar=_whole(dataset, "PlanarConfiguration", 0) == 1,
        padding=_padding(dataset),
    )


def _whole(dataset: "Dataset", name: str, default: int | None = None) -> int:
    try:
        value = dataset.get(name)
        if value not in (None, ""):
            return int(value)
    except (TypeError, ValueError):
        raise malformed(name, "is not a whole number") from None
    if default is None:
        raise malformed(name, "is missing")
    return default


def _padding(dataset: "Dataset") -> tuple[int, int] | None:
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    return value, limit if isinstance(limit, int) else value
