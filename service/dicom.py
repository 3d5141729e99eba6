"""A DICOM file to grey frames: computed tomography only, in Hounsfield units through a window.

Nothing of the header but the few tags below is read, so a name in it reaches no message, log or warning. pydicom and
its decoders are imported when the first DICOM file arrives: the service's start does not pay for them.
"""

import io
import logging
import math
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import ServiceError, UnusableImageError
from service.lossless_jpeg import LosslessJpegError, decode_lossless_jpeg

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_IMPLICIT: Final = "1.2.840.10008.1.2"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

_DECODERS: Final = {
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
"""Transfer syntaxes that are read, and pydicom's plugin or our module that does it; never what happens to be there."""

_NATIVE: Final = frozenset(uid for uid, plugin in _DECODERS.items() if not plugin)

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

_COMPRESSED_SLACK: Final = 64 * 1024
"""A compressed frame larger than twice its pixels and this is a lie: it would decode to more than it announces."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which Hounsfield units are black and white: linear between `centre` - `width` / 2 and `centre` + `width` / 2.

    As DICOM PS3.3 C.11.2.1.3.2 (LINEAR_EXACT) has it.

    Raises:
        ValueError: not finite, or no width.
    """

    centre: float = -600.0
    width: float = 1500.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and math.isfinite(self.width) and self.width > 0):
            raise ValueError(f"a window needs a finite centre and a width above 0, not {self.centre}, {self.width}")

    def grey(self, hounsfield: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Hounsfield units of any shape to 0 (black) to 255 (white), rounded."""
        scaled = (hounsfield - self.centre) / self.width + 0.5
        return np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)


LUNG: Final = Window()
"""The usual lung window."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of the pixels before any is decoded.

    Attributes:
        syntax: UID of the transfer syntax.
        rows, columns, frames: the size that the header announces.
        samples: 1 for grey, 3 for colour.
        bits: bits that a sample has in memory, 8 or 16.
        stored: bits of them that are used.
        signed: whether samples are two's complement.
        photometric: what a sample means.
        planar: whether colour planes lie one after another.
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


class DicomFile:
    """A CT image file whose header has been checked.

    Attributes:
        header: what it announces.
    """

    def __init__(self, dataset: "Dataset", header: Header) -> None:
        self.header = header
        self._dataset = dataset

    def frame(self, index: int, window: Window = LUNG) -> NDArray[np.uint8]:
        """Decode one frame.

        Samples with a rescale go to Hounsfield units and through `window`. Samples of 8 bits without one (or with one
        that changes nothing) are a picture already and stay as they are; deeper ones without one go through the window
        that the file has, else over their whole range. MONOCHROME1 is inverted; colour becomes BT.601 luma.

        Args:
            index: which, from 0.
            window: for Hounsfield units.

        Returns:
            uint8 (rows, columns).

        Raises:
            UnusableImageError: damaged, or its rescale is not a number.
        """
        try:
            pixels = self._decode(index)
            if self.header.samples == 3:
                return np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.uint8)
            return self._grey(pixels, index, window)
        except ServiceError:
            raise
        except Exception:  # noqa: BLE001 - decoders raise nearly anything on hostile bytes, and may quote the header
            raise _damaged("its pixels can't be decoded") from None

    def _decode(self, index: int) -> NDArray[Any]:
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        _be_quiet()
        header, data = self.header, self._dataset[0x7FE00010].value
        if header.syntax not in _NATIVE:
            frame = _compressed_frame(data, header, index)
            _check_stream(frame, header)
            if _DECODERS[header.syntax] == "lossless_jpeg":
                return _lossless(frame, header)
        options: dict[str, Any] = {
            "rows": header.rows,
            "columns": header.columns,
            "number_of_frames": header.frames,
            "samples_per_pixel": header.samples,
            "bits_allocated": header.bits,
            "bits_stored": header.stored,
            "pixel_representation": int(header.signed),
            "photometric_interpretation": header.photometric,
            "planar_configuration": header.planar,
            "pixel_keyword": "PixelData",
            "pixel_vr": "OW" if header.bits > 8 else "OB",
        }
        decoder = get_decoder(UID(header.syntax))
        pixels, _ = decoder.as_array(data, index=index, decoding_plugin=_DECODERS[header.syntax], **options)
        if pixels.shape[:2] != (header.rows, header.columns):
            raise _damaged("its pixels are of another size than its header says")
        return pixels

    def _grey(self, pixels: NDArray[Any], index: int, window: Window) -> NDArray[np.uint8]:
        """By a table of every value that a sample can have: cheaper than arithmetic in every pixel."""
        size = 8 * pixels.dtype.itemsize
        unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
        native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        values = np.arange(2**size, dtype=unsigned).view(native.dtype).astype(np.float64)
        table = self._window(values, index, window)
        if self.header.photometric == "MONOCHROME1":
            table = 255 - table
        return np.asarray(table[np.ascontiguousarray(native).view(unsigned)], dtype=np.uint8)

    def _window(self, values: NDArray[np.float64], index: int, window: Window) -> NDArray[np.uint8]:
        rescale = self._rescale(index)
        if rescale is not None and not (self.header.stored <= 8 and rescale == (1.0, 0.0)):
            slope, intercept = rescale
            return window.grey(values * slope + intercept)
        own = _own_window(self._dataset) if self.header.stored > 8 else None
        if own is None:
            low = -(2.0 ** (self.header.stored - 1)) if self.header.signed else 0.0
            full = 2.0**self.header.stored - 1
            own = Window(low + full / 2, full)
        return own.grey(values)

    def _rescale(self, index: int) -> tuple[float, float] | None:
        """Slope and intercept of a frame: its own, those of all frames, or those of the file."""
        for place in (*_groups(self._dataset, index), self._dataset):
            slope, intercept = place.get("RescaleSlope"), place.get("RescaleIntercept")
            if slope is None or intercept is None:
                continue
            if not (math.isfinite(slope) and math.isfinite(intercept) and slope != 0):
                raise _damaged("its rescale to Hounsfield units is not a number")
            return float(slope), float(intercept)
        return None


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as DICOM does: with its mark after a preamble, or with a plausible first element."""
    return data[128:132] == b"DICM" or _begins_with_element(data)


def open_dicom(data: bytes) -> DicomFile:
    """Read the header of a CT image file; no pixel is decoded.

    Args:
        data: a whole file, with or without preamble.

    Raises:
        UnusableImageError: damaged, not CT, without pixels, or of a kind that is not read; the detail says which. It
            holds nothing of the header but modality, transfer syntax and sizes.
    """
    try:
        _be_quiet()
        syntax, dataset = _read(data)
        return DicomFile(dataset, _header(syntax, dataset))
    except ServiceError:
        raise
    except Exception:  # noqa: BLE001 - as in DicomFile.frame
        raise _damaged("its DICOM header can't be read") from None


def _be_quiet() -> None:
    """Keep pydicom, whose warnings quote what it found, out of every log; that is patients' data.

    Done at each use since a test or a library may have put the filters back; never undone, which threads could not
    agree on.
    """
    pattern = r"(pydicom|service\.dicom)\b"
    if ("ignore", None, Warning, re.compile(pattern), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=pattern)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def _read(data: bytes) -> tuple[str, "Dataset"]:
    """The transfer syntax, and those of `_TAGS` that the file has."""
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
    if syntax not in _DECODERS:
        known = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "unreadable"
        raise _refused(f"The file's transfer syntax {known} is not read.", code="unsupported_transfer_syntax")
    if syntax == _DEFLATED:
        file = io.BytesIO(_inflated(file.read()))
    counted = _Counter()
    dataset = read_dataset(file, syntax == _IMPLICIT, syntax != _BIG_ENDIAN, stop_when=counted, specific_tags=[*_TAGS])
    if counted.count > _MAX_ELEMENTS:
        raise _damaged(f"its header has more than {_MAX_ELEMENTS} elements")
    return syntax, dataset


class _Counter:
    """Ends the reading of a header that has too many elements, or where another group begins."""

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
        raise _damaged(f"its deflated content is larger than {_MAX_INFLATED} bytes")
    return inflated


def _header(syntax: str, dataset: "Dataset") -> Header:
    """Check what the file says of itself, the most telling reason first."""
    if 0x00420011 in dataset:
        raise _refused(
            "The DICOM file holds a document (an encapsulated PDF or the like), no image.", code="no_pixel_data"
        )
    modality = str(dataset.get("Modality") or "")
    if modality != "CT":
        found = f"modality {modality}" if re.fullmatch(r"[A-Z]{1,16}", modality) else "no known modality"
        raise _refused(f"The DICOM file is of {found}, and the model knows CT slices only.", code="not_ct")
    if 0x7FE00008 in dataset or 0x7FE00009 in dataset:
        raise _refused("The DICOM file has floating-point samples; send 8 or 16 bits.", code="unsupported_sample_depth")
    if not dataset.get("PixelData"):
        raise _refused("The DICOM file holds no pixel data, or is cut off before its end.", code="no_pixel_data")
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
        raise _refused(
            f"The DICOM file has {header.stored} bits in samples of {header.bits}; samples of 8 or 16 bits are read.",
            code="unsupported_sample_depth",
        )
    grey = header.samples == 1 and header.photometric in ("MONOCHROME1", "MONOCHROME2")
    colours = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
    colour = header.samples == 3 and header.bits == 8 and header.photometric in colours
    if not (grey or colour):
        raise _refused(
            f"The DICOM file has {header.samples} samples a pixel, of {header.bits} bits, in an unsupported colour "
            "model; send grey (MONOCHROME1 or 2) or 8-bit RGB.",
            code="unsupported_colour_mode",
        )
    if header.rows < 1 or header.columns < 1 or header.frames < 1:
        raise _damaged(f"it announces {header.frames} frames of {header.columns} x {header.rows} pixels")


def _check_length(header: Header, found: int) -> None:
    if header.syntax not in _NATIVE or header.photometric == "YBR_FULL_422":
        return
    needed = header.rows * header.columns * header.samples * (header.bits // 8) * header.frames
    if found < needed:
        raise _damaged(f"it has {found} of {needed} bytes of pixels: it is truncated")


def _compressed_frame(data: bytes, header: Header, index: int) -> bytes:
    from pydicom.encaps import get_frame

    frame = get_frame(data, index, number_of_frames=header.frames)
    if len(frame) > 2 * header.rows * header.columns * header.samples * (header.bits // 8) + _COMPRESSED_SLACK:
        raise _damaged("a compressed frame has more bytes than its pixels need")
    return frame


def _lossless(frame: bytes, header: Header) -> NDArray[Any]:
    try:
        pixels = decode_lossless_jpeg(frame)
    except LosslessJpegError as error:
        raise _damaged(f"its lossless JPEG can't be read: {error}") from None
    if header.samples != 1:
        raise _refused("Colour in lossless JPEG is not read.", code="unsupported_colour_mode")
    if header.signed:  # two's complement of the stored bits
        spare = 16 - header.stored
        return (pixels << spare).astype(np.int16) >> spare
    return pixels


def _check_stream(frame: bytes, header: Header) -> None:
    """Hold the compressed stream to the header's size: decoders believe the stream, and take memory for it."""
    if header.syntax == "1.2.840.10008.1.2.5":
        return  # RLE has no size of its own, and its bytes are bounded above
    size = _jpeg_2000_size(frame) if header.syntax >= "1.2.840.10008.1.2.4.9" else _jpeg_size(frame)
    if size != (header.columns, header.rows):
        raise _damaged("its compressed pixels are of another size than its header says")


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Columns and rows in the first start-of-frame marker (ITU-T T.81 B.2.2; T.87 for JPEG-LS)."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 9 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", frame, at + 5)
            return columns, rows
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return None


def _jpeg_2000_size(frame: bytes) -> tuple[int, int] | None:
    """Columns and rows in the SIZ marker (ITU-T T.800 A.5.1), be the codestream in a JP2 box or bare."""
    at = frame.find(b"\xff\x4f\xff\x51")
    if at < 0 or at + 24 > len(frame):
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, at + 8)
    return right - left, bottom - top


def _groups(dataset: "Dataset", index: int) -> list["Dataset"]:
    """Where an enhanced (multi-frame) file keeps the rescale of a frame: PS3.3 C.7.6.16.2.9."""
    found: list[Dataset] = []
    for name, at in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(name) or []
        if at < len(items):
            found.extend((items[at].get("PixelValueTransformationSequence") or [])[:1])
    return found


def _own_window(dataset: "Dataset") -> Window | None:
    """The first window that the file has, or None."""
    centre, width = (np.ravel(dataset.get(name) or []) for name in ("WindowCenter", "WindowWidth"))
    if not centre.size or not width.size:
        return None
    try:
        return Window(float(centre[0]), float(width[0]))
    except ValueError:
        return None


def _begins_with_element(data: bytes) -> bool:
    """Whether a file without preamble begins with an element of group 2 or 8, and another of those or group 16."""
    if len(data) < 20 or data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    group, element, length = struct.unpack_from("<HHI", data)
    if data[4:6] in (b"UI", b"CS", b"UL", b"DA", b"TM", b"LO", b"SH", b"OB"):
        length = (
            4 + struct.unpack_from("<I", data, 8)[0] if data[4:6] == b"OB" else struct.unpack_from("<H", data, 6)[0]
        )
    if length % 2 or length > 128 or 8 + length + 4 > len(data):
        return False
    following = struct.unpack_from("<HH", data, 8 + length)
    return following[0] in (2, 8, 16) and following > (group, element)


def _refused(detail: str, *, code: str) -> UnusableImageError:
    return UnusableImageError(detail, code=code)


def _damaged(what: str) -> UnusableImageError:
    return UnusableImageError(f"The image is damaged: {what}. Send the whole, unmodified file.", code="damaged_image")
