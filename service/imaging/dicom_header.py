"""Reads the elements of a DICOM file up to its pixels; their values may be malformed."""

import io
import math
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from service.errors import UnusableImageError, damaged_image, malformed_element

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
NATIVE: Final = frozenset((IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN))
"""Transfer syntaxes of uncompressed pixels."""

_PIXELS: Final = 0x7FE00010
_FLOAT_PIXELS: Final = (0x7FE00008, 0x7FE00009)
_UNDEFINED: Final = 0xFFFFFFFF

_FUNCTIONAL_GROUPS: Final = 0x5200
"""Groups from here on describe frames or have pixels."""

_HEADER_BYTES: Final = 256 * 1024
"""Of the elements that results refer to; usual files have 5 to 20 kB."""


@dataclass(frozen=True, slots=True)
class Header:
    """Description of the pixels, known before decoding."""

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
    planar: int  # 1 if colour planes are stored one after another


class Reader:
    """Reader of a DICOM file, with or without preamble, up to its pixels.

    Attributes:
        syntax: UID of the transfer syntax; if it is missing, it is guessed from the first element.
        sop_class: UID of the class by the file meta information; may be empty.
        vr: value representation of the last element seen, which are the pixels if there are any.
    """

    def __init__(self, data: bytes) -> None:
        from pydicom.filereader import read_dataset

        start = next((at + 4 for at in (128, 0) if data[at : at + 4] == b"DICM"), 0)
        self.syntax = self.sop_class = self.vr = ""
        if data[start : start + 2] == b"\x02\x00":
            file = io.BytesIO(data)
            file.seek(start)
            meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
            self.syntax = str(meta.get("TransferSyntaxUID") or "").strip()
            self.sop_class = str(meta.get("MediaStorageSOPClassUID") or "").strip()
            start = file.tell()
        if not self.syntax:
            self.syntax = EXPLICIT if data[start + 4 : start + 6].isalpha() else IMPLICIT
        if self.syntax == DEFLATED:
            data = data[:start] + zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:])
        self._data, self._start, self._file = data, start, io.BytesIO(data)
        self._tag, self._value, self._end = 0, 0, 0

    def read(self) -> "Dataset":
        """Read the elements before the pixels.

        Raises:
            Exception: nearly any, if the file is damaged; the text may quote the header.
        """
        from pydicom.dataset import FileMetaDataset
        from pydicom.filereader import read_dataset
        from pydicom.uid import UID

        self._file.seek(self._start)
        is_implicit, is_little = self.syntax == IMPLICIT, self.syntax != BIG_ENDIAN
        dataset = read_dataset(self._file, is_implicit, is_little, stop_when=self._is_at_pixels)
        dataset.file_meta = FileMetaDataset()  # tables of words need its byte order
        dataset.file_meta.TransferSyntaxUID = UID(self.syntax)
        return dataset

    def _is_at_pixels(self, tag: int, vr: str | None, length: int) -> bool:
        self._tag, self.vr, self._value = tag, vr or "", self._file.tell()
        self._end = len(self._data) if length == _UNDEFINED else self._value + length
        return tag == _PIXELS or self.is_float

    @property
    def is_float(self) -> bool:
        """Whether the pixels are floating-point numbers."""
        return self._tag in _FLOAT_PIXELS

    @property
    def is_truncated(self) -> bool:
        """Whether the last element announces more bytes than the file has."""
        return self._end > len(self._data)

    @property
    def pixels(self) -> memoryview:
        """Value of the pixel data; if compressed, all until the end of the file. Empty if there are none."""
        return memoryview(self._data)[self._value : self._end if self._tag == _PIXELS else 0]

    def series_header(self) -> bytes:
        """Copy the standard elements of patient, study, series and instance into a DICOM file of at most 256 KiB.

        Private elements, those of frames, and those that do not fit or are malformed are left out: results refer to
        none of them, and there may be a million.
        """
        from pydicom.datadict import dictionary_has_tag
        from pydicom.dataset import FileMetaDataset
        from pydicom.filebase import DicomBytesIO
        from pydicom.filewriter import write_data_element, write_file_meta_info
        from pydicom.uid import UID

        dataset, meta, header = self.read(), FileMetaDataset(), DicomBytesIO(bytes(128) + b"DICM")
        meta.TransferSyntaxUID = UID(EXPLICIT if self.syntax == DEFLATED else self.syntax)
        header.seek(0, io.SEEK_END)
        write_file_meta_info(header, meta, enforce_standard=False)
        for tag in filter(dictionary_has_tag, sorted(dataset.keys())):
            if tag.group >= _FUNCTIONAL_GROUPS:
                break
            element = DicomBytesIO()
            element.is_implicit_VR, element.is_little_endian = self.syntax == IMPLICIT, self.syntax != BIG_ENDIAN
            with suppress(Exception):  # pydicom raises nearly anything on hostile bytes
                write_data_element(element, dataset.get_item(tag))
                if header.tell() + element.tell() <= _HEADER_BYTES:
                    header.write(element.getvalue())
        return header.getvalue()


def places(dataset: "Dataset", index: int, group: str) -> list["Dataset"]:
    """List where an element of a frame may be: its functional group, the shared one (PS3.3 C.7.6.16), or the file.

    Raises:
        UnusableImageError: a functional group is not a sequence.
    """
    groups: list[Dataset] = []
    for sequence, at in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        for item in items_of(dataset, sequence)[at : at + 1]:
            groups.extend(items_of(item, group)[:1])
    return [*groups, dataset]


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


def numbers(dataset: "Dataset", name: str) -> list[float]:
    """Read the decimal strings of an element, with points or commas; an absent or empty element gives an empty list.

    Raises:
        UnusableImageError: a value is not a finite number.
    """
    element: Any = dataset.get_item(name)
    value = b"" if element is None or element.value is None else element.value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    parts = [part.strip(" \0") for part in text.replace(",", ".").split("\\")]
    try:
        values = [float(part) for part in parts if part]
    except ValueError:
        raise malformed(name, "is not a number") from None
    if not all(math.isfinite(number) for number in values):
        raise malformed(name, "is not a finite number")
    return values


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
