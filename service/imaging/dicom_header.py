"""The header of a CT image file: which elements are read, and the checks before any pixel is decoded."""

import io
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.errors import ErrorCode, UnusableImageError, damaged_image

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_IMPLICIT: Final = "1.2.840.10008.1.2"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

DECODERS: Final = {
    _IMPLICIT: "",
    "1.2.840.10008.1.2.1": "",
    _DEFLATED: "",
    _BIG_ENDIAN: "",
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    "1.2.840.10008.1.2.4.51": "pillow",  # JPEG extended, of which 8 bits only
    "1.2.840.10008.1.2.4.57": "lossless_jpeg",
    "1.2.840.10008.1.2.4.70": "lossless_jpeg",  # first order
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS near lossless
    "1.2.840.10008.1.2.4.90": "pillow",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": "pillow",  # JPEG 2000
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
}
"""Supported transfer syntaxes, with pydicom's plugin or our module; never whichever plugin is installed."""

NATIVE: Final = frozenset(uid for uid, plugin in DECODERS.items() if not plugin)

_TAGS: Final = (
    0x00020010,  # TransferSyntaxUID
    0x00080060,  # Modality
    0x00280002,  # SamplesPerPixel
    0x00280004,  # PhotometricInterpretation
    0x00280006,  # PlanarConfiguration
    0x00280008,  # NumberOfFrames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # BitsAllocated
    0x00280101,  # BitsStored
    0x00280103,  # PixelRepresentation
    0x00281050,  # WindowCenter
    0x00281051,  # WindowWidth
    0x00281052,  # RescaleIntercept
    0x00281053,  # RescaleSlope
    0x00420011,  # EncapsulatedDocument
    0x52009229,  # SharedFunctionalGroupsSequence
    0x52009230,  # PerFrameFunctionalGroupsSequence
    0x7FE00008,  # FloatPixelData
    0x7FE00009,  # DoubleFloatPixelData
    0x7FE00010,  # PixelData
)

_MAX_ELEMENTS: Final = 20_000
"""At the top level; a CT slice has some hundred. Each costs time before the file can be judged."""

_MAX_INFLATED: Final = 256 * 1024 * 1024
"""Bytes that a deflated data set may have; a CT slice of 512 x 512 has half a million."""


@dataclass(frozen=True, slots=True)
class Header:
    """Description of the pixels, known before decoding.

    Attributes:
        syntax: UID of the transfer syntax.
        rows, columns, frames: size according to the header.
        samples: 1 for grey, 3 for colour.
        bits: bits of a sample in memory, 8 or 16.
        stored: number of these bits that are used.
        signed: whether samples are two's complement.
        photometric: photometric interpretation of a sample.
        planar: 1 if colour planes are stored one after another.
    """

    syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    bits: int
    stored: int
    signed: bool
    photometric: str
    planar: int


def read_header(data: bytes) -> tuple[str, "Dataset"]:
    """Read the transfer syntax and the elements of `_TAGS`."""
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    start = file.tell()
    syntax = ""
    if data[start : start + 2] == b"\x02\x00":
        meta = read_dataset(file, False, True, stop_when=_Counter(only_group=2))
        syntax = str(meta.get("TransferSyntaxUID") or "").strip()
        start = file.tell()
    if not syntax:
        syntax = "1.2.840.10008.1.2.1" if data[start + 4 : start + 6].isalpha() else _IMPLICIT
    if syntax not in DECODERS:
        known = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "unreadable"
        raise UnusableImageError(
            f"The file's transfer syntax {known} is not read.", code=ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX
        )
    if syntax == _DEFLATED:
        file = io.BytesIO(_inflated(file.read()))
    counted = _Counter()
    dataset = read_dataset(file, syntax == _IMPLICIT, syntax != _BIG_ENDIAN, stop_when=counted, specific_tags=[*_TAGS])
    if counted.count > _MAX_ELEMENTS:
        raise damaged_image(f"its header has more than {_MAX_ELEMENTS} elements")
    return syntax, dataset


class _Counter:
    """Stop condition for reading: too many elements, or the start of another group."""

    def __init__(self, only_group: int | None = None) -> None:
        self.count = 0
        self._only_group = only_group

    def __call__(self, tag: int, *_: object) -> bool:
        self.count += 1
        other = self._only_group is not None and tag >> 16 != self._only_group
        return other or self.count > _MAX_ELEMENTS


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(data, _MAX_INFLATED)
    if stream.unconsumed_tail:
        raise damaged_image(f"its deflated content is larger than {_MAX_INFLATED} bytes")
    return inflated


def check_header(syntax: str, dataset: "Dataset") -> Header:
    """Check the header; the most useful reason for a refusal comes first."""
    if 0x00420011 in dataset:
        raise UnusableImageError(
            "The DICOM file holds a document (an encapsulated PDF or the like), not an image.",
            code=ErrorCode.NO_PIXEL_DATA,
        )
    modality = str(dataset.get("Modality") or "")
    if modality != "CT":
        found = f"modality {modality}" if re.fullmatch(r"[A-Z]{1,16}", modality) else "no known modality"
        raise UnusableImageError(
            f"The DICOM file is of {found}, and the model knows CT slices only.", code=ErrorCode.NOT_CT
        )
    if 0x7FE00008 in dataset or 0x7FE00009 in dataset:
        raise UnusableImageError(
            "The DICOM file has floating-point samples; send 8 or 16 bits.", code=ErrorCode.UNSUPPORTED_SAMPLE_DEPTH
        )
    if not dataset.get("PixelData"):
        raise UnusableImageError(
            "The DICOM file holds no pixel data, or is cut off before its end.", code=ErrorCode.NO_PIXEL_DATA
        )
    header = Header(
        syntax=syntax,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        bits=int(dataset.BitsAllocated),
        stored=int(dataset.get("BitsStored") or dataset.BitsAllocated),
        signed=bool(dataset.get("PixelRepresentation") or 0),
        photometric=str(dataset.get("PhotometricInterpretation") or ""),
        planar=int(dataset.get("PlanarConfiguration") or 0),
    )
    _check_kind(header)
    _check_length(header, len(dataset.PixelData))
    return header


def _check_kind(header: Header) -> None:
    if header.bits not in (8, 16) or not 1 <= header.stored <= header.bits:
        raise UnusableImageError(
            f"The DICOM file has {header.stored} bits in samples of {header.bits}; samples of 8 or 16 bits are read.",
            code=ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    grey = header.samples == 1 and header.photometric in ("MONOCHROME1", "MONOCHROME2")
    colours = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
    colour = header.samples == 3 and header.bits == 8 and header.photometric in colours
    if not (grey or colour):
        raise UnusableImageError(
            f"The DICOM file has {header.samples} samples a pixel, of {header.bits} bits, in an unsupported colour "
            "model; send grey (MONOCHROME1 or 2) or 8-bit RGB.",
            code=ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    if header.rows < 1 or header.columns < 1 or header.frames < 1:
        raise damaged_image(f"it announces {header.frames} frames of {header.columns} x {header.rows} pixels")


def _check_length(header: Header, found: int) -> None:
    if header.syntax not in NATIVE or header.photometric == "YBR_FULL_422":
        return
    needed = header.rows * header.columns * header.samples * (header.bits // 8) * header.frames
    if found < needed:
        raise damaged_image(f"it has {found} of {needed} bytes of pixels: it is truncated")
