"""Elements of a CT image file, read up to its pixels before any of them is decoded."""

import io
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from service.errors import (
    ErrorCode,
    UnusableImageError,
    damaged_image,
    limit_exceeded,
    malformed_element,
    unsupported,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
RLE: Final = "1.2.840.10008.1.2.5"

NATIVE: Final = frozenset((IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN))

_CODECS: Final = (
    ("decode_jpeg", (50, 51, 57, 70)),  # baseline, extended (12 bits), lossless with any predictor and with the first
    ("decode_jpeg_ls", (80, 81)),
    ("decode_jpeg_2000", (90, 91, 201, 202, 203)),  # the last three are HTJ2K
    ("decode_jpeg_xl", (110, 111, 112)),
)

PLUGINS: Final = {RLE: ("service.imaging.codecs", "decode_rle")} | {
    f"1.2.840.10008.1.2.4.{number}": ("service.imaging.codecs", name) for name, numbers in _CODECS for number in numbers
}
"""Transfer syntaxes of compressed pixels, with module and function of their decoder."""

_VIDEO: Final = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10\d(\.1)?")
"""Transfer syntaxes of MPEG-2, MPEG-4 and HEVC video (PS3.6 A), which no tool converts to CT slices."""

_PIXELS: Final = 0x7FE00010
_FLOAT_PIXELS: Final = (0x7FE00008, 0x7FE00009)
_UNDEFINED: Final = 0xFFFFFFFF

_MAX_ITEMS: Final = 100_000
"""Items of all sequences, and fragments; an enhanced CT of 600 slices has some 10,000. A million take seconds."""

_ITEM_BYTES: Final = 8
"""Of an empty item."""

_ITEMS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""Tag of an item, little and big endian."""


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements found in a file.

    Attributes:
        syntax: UID of the transfer syntax.
        sop_class: UID of the class, of the data set or else of the file meta information; may be empty.
        dataset: the elements before the pixels.
        pixels: value of the pixel data; if compressed, all until the end of the file. Empty if there are none.
        pixel_vr: value representation of the pixel data; empty in an implicit file.
        is_float: whether the pixels are floating-point numbers, which are not read.
        is_truncated: whether the last element announces more bytes than the file has.
    """

    syntax: str
    sop_class: str
    dataset: "Dataset"
    pixels: bytes
    pixel_vr: str
    is_float: bool
    is_truncated: bool


def read_elements(data: bytes) -> Elements:
    """Read the elements of a DICOM file.

    Args:
        data: a whole file, with or without preamble.

    Raises:
        UnusableImageError: its transfer syntax is not read.
        Exception: nearly any, if it is damaged; the text may quote the header.
    """
    start, syntax, sop_class = _read_meta(data)
    _check_syntax(syntax)
    dataset, end = _read_dataset(data, start, syntax)
    body, stop = end.file.getvalue(), None
    if end.length != _UNDEFINED:
        stop = end.value + end.length
    return Elements(
        syntax=syntax,
        sop_class=str(dataset.get("SOPClassUID") or sop_class),
        dataset=dataset,
        pixels=body[end.value : stop] if end.tag == _PIXELS else b"",
        pixel_vr=end.vr,
        is_float=end.tag in _FLOAT_PIXELS,
        is_truncated=not dataset or (stop or 0) > len(body),
    )


def before_pixels(data: bytes) -> bytes:
    """Cut a DICOM file before its pixels, so that pydicom reads every other element of it.

    Args:
        data: a whole file whose header `read_elements` reads.
    """
    start, syntax, _ = _read_meta(data)
    _, end = _read_dataset(data, start, syntax)
    header = end.file.getvalue()[: end.file.tell()]
    if syntax == DEFLATED:
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        header = stream.compress(header) + stream.flush()
    return data[:start] + header


def _read_meta(data: bytes) -> tuple[int, str, str]:
    """Return where the data set starts, its transfer syntax, and the class of the file meta information."""
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data)
    start = next((at + 4 for at in (128, 0) if data[at : at + 4] == b"DICM"), 0)
    file.seek(start)
    syntax = sop_class = ""
    if data[start : start + 2] == b"\x02\x00":
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        syntax = str(meta.get("TransferSyntaxUID") or "").strip()
        sop_class = str(meta.get("MediaStorageSOPClassUID") or "").strip()
        start = file.tell()
    if not syntax:
        syntax = EXPLICIT if data[start + 4 : start + 6].isalpha() else IMPLICIT
    return start, syntax, sop_class


def _check_syntax(syntax: str) -> None:
    if _VIDEO.fullmatch(syntax):
        raise UnusableImageError(
            "The DICOM file holds a video (MPEG), not CT slices; send the original CT series.", code=ErrorCode.NOT_CT
        )
    if syntax not in NATIVE | PLUGINS.keys():
        known = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "unreadable"
        raise unsupported(
            f"The file's transfer syntax {known} is not supported.",
            "gdcmconv --raw in.dcm out.dcm",
            ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        )


class _End:
    """Stop condition of a reader: the pixels, or the end of the file.

    Attributes:
        file: the data set; its position is behind the last element that was read.
        tag, vr, length: of the last element that was seen.
        value: position of its value.
    """

    def __init__(self, file: io.BytesIO) -> None:
        self.file = file
        self.tag, self.vr, self.length, self.value = 0, "", 0, 0

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        self.tag, self.vr, self.length, self.value = tag, vr or "", length, self.file.tell()
        return tag == _PIXELS or tag in _FLOAT_PIXELS


def _read_dataset(data: bytes, start: int, syntax: str) -> tuple["Dataset", _End]:
    """Read the elements before the pixels."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    body = data[start:]
    if syntax == DEFLATED:
        body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body)
    if len(body) > _ITEM_BYTES * _MAX_ITEMS and sum(body.count(item) for item in _ITEMS) > _MAX_ITEMS:
        raise limit_exceeded(f"its sequences have more than {_MAX_ITEMS} items")
    end = _End(io.BytesIO(body))
    dataset = read_dataset(end.file, syntax == IMPLICIT, syntax != BIG_ENDIAN, stop_when=end)
    dataset.file_meta = FileMetaDataset()  # tables of words need its byte order
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset, end


def numbers(dataset: "Dataset", name: str, tag: int) -> list[float]:
    """Read the decimal strings of an element, with points or commas; an absent or empty element gives an empty list.

    Args:
        dataset: with the element, if it has it.
        name, tag: of the element; the name is for the message.

    Raises:
        UnusableImageError: a value is not a finite number.
    """
    element: Any = dataset.get_item(tag)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = value.split("\\")
    parts = [] if value is None else value if isinstance(value, Iterable) else [value]
    texts = [str(part).strip(" \0").replace(",", ".") for part in parts]
    try:
        values = [float(text) for text in texts if text]
    except ValueError:
        raise malformed_element(name, tag, "is not a number") from None
    if not all(math.isfinite(number) for number in values):
        raise malformed_element(name, tag, "is not a finite number")
    return values


def items_of(dataset: "Dataset", name: str) -> Sequence["Dataset"]:
    """List the items of a sequence; an absent or empty one has none.

    Raises:
        UnusableImageError: the element is not a sequence.
    """
    from pydicom.sequence import Sequence as Items

    value = dataset.get(name)
    if not value:
        return []
    if not isinstance(value, Items):
        raise damaged_image(f"its {name} is not a sequence")
    return value


def texts(dataset: "Dataset", name: str) -> list[str]:
    """List the values of an element as text, whatever its kind."""
    value = dataset.get(name)
    parts = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return [str(part) for part in parts if part is not None]
