"""Header elements of a CT image file, read before any pixel is decoded."""

import io
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from service.errors import ErrorCode, limit_exceeded, malformed_element, unsupported
from service.imaging.codecs import JPEG_2000_SYNTAXES, JPEG_LS_SYNTAXES, JPEG_SYNTAXES

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
RLE: Final = "1.2.840.10008.1.2.5"

NATIVE: Final = frozenset((IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN))
COMPRESSED: Final = frozenset((RLE, *JPEG_SYNTAXES, *JPEG_LS_SYNTAXES, *JPEG_2000_SYNTAXES))

PIXEL_DATA: Final = 0x7FE00010

_PIXELS: Final = 0x7FE0
"""Group of the pixels."""

_TAGS: Final = (
    0x00080008,  # ImageType
    0x00080016,  # SOPClassUID
    0x00080018,  # SOPInstanceUID
    0x00080060,  # Modality
    0x00180050,  # SliceThickness
    0x0020000D,  # StudyInstanceUID
    0x0020000E,  # SeriesInstanceUID
    0x00200012,  # AcquisitionNumber
    0x00200013,  # InstanceNumber
    0x00200032,  # ImagePositionPatient
    0x00200037,  # ImageOrientationPatient
    0x00280002,  # SamplesPerPixel
    0x00280004,  # PhotometricInterpretation
    0x00280006,  # PlanarConfiguration
    0x00280008,  # NumberOfFrames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # PixelSpacing
    0x00280100,  # BitsAllocated
    0x00280101,  # BitsStored
    0x00280102,  # HighBit
    0x00280103,  # PixelRepresentation
    0x00280120,  # PixelPaddingValue
    0x00280121,  # PixelPaddingRangeLimit
    0x00281050,  # WindowCenter
    0x00281051,  # WindowWidth
    0x00281052,  # RescaleIntercept
    0x00281053,  # RescaleSlope
    0x00281054,  # RescaleType
    *(0x00281100 + n for n in (1, 2, 3)),  # descriptors of the red, green and blue palette
    *(0x00281200 + n for n in (1, 2, 3)),  # their data
    0x00281221,  # segmented data of the red palette
    0x00283000,  # ModalityLUTSequence
    0x00420011,  # EncapsulatedDocument
    0x52009229,  # SharedFunctionalGroupsSequence
    0x52009230,  # PerFrameFunctionalGroupsSequence
    0x7FE00008,  # FloatPixelData
    0x7FE00009,  # DoubleFloatPixelData
    PIXEL_DATA,
)

_MAX_ELEMENTS: Final = 20_000
"""Elements at the top level; a CT slice has a few hundred, and each takes time."""

_MAX_ITEMS: Final = 100_000
"""Items of all sequences, and fragments; an enhanced CT of 600 slices has some 10,000. Each takes time."""

_MAX_VALUE_BYTES: Final = 256 * 1024
"""Bytes of an element that is neither a sequence nor pixels; the largest, a palette, has half as many."""

_MAX_INFLATED: Final = 64 * 1024 * 1024
"""Maximum bytes of a deflated data set; a CT slice of 4096 x 4096 has half as many."""

_ITEM_BYTES: Final = 8
"""Of an empty item."""

_ITEMS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""Tag of an item, little and big endian."""

_LARGE: Final = frozenset((0x00283000, 0x00420011, 0x52009229, 0x52009230, 0x7FE00008, 0x7FE00009, PIXEL_DATA))
"""Sequences, documents and pixels."""

_READ: Final = frozenset(_TAGS)

_UNDEFINED: Final = 0xFFFFFFFF
_SEQUENCE_DELIMITER: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements found in a file.

    Attributes:
        syntax: UID of the transfer syntax.
        sop_class: UID of the class, of the data set or else of the file meta information; may be empty.
        dataset: the elements of `_TAGS`.
        truncated: whether an element announces more bytes than the file has.
    """

    syntax: str
    sop_class: str
    dataset: "Dataset"
    truncated: bool


def read_elements(data: bytes) -> Elements:
    """Read the transfer syntax and the elements of `_TAGS`; stop after the pixels.

    Raises:
        UnusableImageError: unsupported transfer syntax, or a limit is exceeded.
    """
    start, syntax, sop_class = _read_meta(data)
    _check_syntax(syntax)
    body = _inflated(data[start:]) if syntax == DEFLATED else data[start:]
    dataset, truncated = _read_dataset(body, syntax)
    return Elements(syntax, str(dataset.get("SOPClassUID") or sop_class), dataset, truncated)


def before_pixels(data: bytes) -> bytes:
    """Cut a DICOM file before its pixels, so that pydicom reads every other element of it.

    Args:
        data: a whole file whose header `read_elements` reads.
    """
    from pydicom.filereader import data_element_generator

    start, syntax, _ = _read_meta(data)
    file = io.BytesIO(_inflated(data[start:]) if syntax == DEFLATED else data[start:])
    skipped = data_element_generator(
        file, syntax == IMPLICIT, syntax != BIG_ENDIAN, stop_when=lambda tag, *_: tag >> 16 >= _PIXELS, specific_tags=[]
    )
    for _ in skipped:
        pass
    body = file.getvalue()[: file.tell()]
    return data[:start] + (_deflated(body) if syntax == DEFLATED else body)


def _read_meta(data: bytes) -> tuple[int, str, str]:
    """Return where the data set starts, its transfer syntax, and the class of the file meta information."""
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data)
    start = next((at + 4 for at in (128, 0) if data[at : at + 4] == b"DICM"), 0)
    file.seek(start)
    syntax = sop_class = ""
    if data[start : start + 2] == b"\x02\x00":
        meta = read_dataset(file, False, True, stop_when=_Watch(file, len(data), only_group=2))
        syntax = str(meta.get("TransferSyntaxUID") or "").strip()
        sop_class = str(meta.get("MediaStorageSOPClassUID") or "").strip()
        start = file.tell()
    if not syntax:
        syntax = EXPLICIT if data[start + 4 : start + 6].isalpha() else IMPLICIT
    return start, syntax, sop_class


def _check_syntax(syntax: str) -> None:
    if syntax not in NATIVE | COMPRESSED:
        known = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "unreadable"
        raise unsupported(
            f"The file's transfer syntax {known} is not supported.",
            "gdcmconv --raw in.dcm out.dcm",
            ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        )


def _read_dataset(body: bytes, syntax: str) -> tuple["Dataset", bool]:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filereader import data_element_generator
    from pydicom.tag import Tag
    from pydicom.uid import UID

    if len(body) > _ITEM_BYTES * _MAX_ITEMS and sum(body.count(item) for item in _ITEMS) > _MAX_ITEMS:
        raise limit_exceeded(f"its sequences have more than {_MAX_ITEMS} items")
    if syntax in COMPRESSED:  # closes pixel data that lack it; behind complete pixel data it is not read
        body += _SEQUENCE_DELIMITER
    file, dataset = io.BytesIO(body), Dataset()
    dataset.file_meta = FileMetaDataset()  # tables of words need its byte order
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    watch = _Watch(file, len(body))
    elements = data_element_generator(
        file, syntax == IMPLICIT, syntax != BIG_ENDIAN, stop_when=watch, specific_tags=[Tag(tag) for tag in _TAGS]
    )
    truncated = False
    try:
        for element in elements:
            dataset[element.tag] = element
    except EOFError:
        truncated = True
    if watch.count > _MAX_ELEMENTS:
        raise limit_exceeded(f"its header has more than {_MAX_ELEMENTS} elements")
    if watch.too_large is not None:
        raise limit_exceeded(f"its element {_named(watch.too_large)} has more than {_MAX_VALUE_BYTES} bytes")
    return dataset, truncated or watch.truncated or watch.count == 0


class _Watch:
    """Stop condition for reading: too many elements, the start of another group, or the end of the pixels."""

    def __init__(self, file: io.BytesIO, size: int, only_group: int | None = None) -> None:
        self.count = 0
        self.truncated = False
        self.too_large: int | None = None
        self._file = file
        self._size = size
        self._only_group = only_group
        self._after_pixels = False

    def __call__(self, tag: int, _: object, length: int) -> bool:
        if self._after_pixels or (self._only_group is not None and tag >> 16 != self._only_group):
            return True
        self.count += 1
        self._after_pixels = tag == PIXEL_DATA
        if length == _UNDEFINED:
            return self.count > _MAX_ELEMENTS
        self.truncated |= self._file.tell() + length > self._size
        if length > _MAX_VALUE_BYTES and tag in _READ and tag not in _LARGE:
            self.too_large = tag
        return self.count > _MAX_ELEMENTS or self.too_large is not None


def _named(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(data, _MAX_INFLATED)
    if stream.unconsumed_tail:
        raise limit_exceeded(f"its deflated content is larger than {_MAX_INFLATED} bytes")
    return inflated


def _deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def numbers(dataset: "Dataset", name: str, tag: int) -> list[float]:
    """Read the decimal strings of an element, also with commas for points; an absent or empty one gives an empty list.

    Args:
        dataset: with the element, if it has it.
        name, tag: of the element; the name is for the message.

    Raises:
        UnusableImageError: a value is not a finite number.
    """
    element: Any = dataset.get_item(tag)
    value = None if element is None else element.value
    if isinstance(value, bytes | str):
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        parts = [part.strip(" \0").replace(",", ".") for part in text.split("\\")]
    else:
        several = [] if value is None else value if isinstance(value, Iterable) else [value]
        parts = [str(part) for part in several]
    try:
        found = [float(part) for part in parts if part]
    except ValueError:
        raise malformed_element(name, tag, "is not a number") from None
    if not all(math.isfinite(number) for number in found):
        raise malformed_element(name, tag, "is not a finite number")
    return found
