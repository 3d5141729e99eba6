"""Reads a DICOM file up to its pixels."""

import io
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

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
            data, start = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:]), 0
        self._data, self._file = data, io.BytesIO(data)
        self._file.seek(start)
        self._tag, self._value, self._end = 0, 0, 0

    def read(self) -> "Dataset":
        """Read the elements before the pixels.

        Raises:
            Exception: nearly any, if the file is damaged; the text may quote the header.
        """
        from pydicom.dataset import Dataset
        from pydicom.filereader import read_dataset

        is_implicit, is_little = self.syntax == IMPLICIT, self.syntax != BIG_ENDIAN
        dataset = read_dataset(self._file, is_implicit, is_little, stop_when=self._is_at_pixels)
        self._raw = Dataset(dict(dataset.items()))  # access to the other one converts its elements
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

        meta, header = FileMetaDataset(), DicomBytesIO(bytes(128) + b"DICM")
        meta.TransferSyntaxUID = UID(EXPLICIT if self.syntax == DEFLATED else self.syntax)
        header.seek(0, io.SEEK_END)
        write_file_meta_info(header, meta, enforce_standard=False)
        for tag in filter(dictionary_has_tag, sorted(self._raw.keys())):
            if tag.group >= _FUNCTIONAL_GROUPS:
                break
            copy = DicomBytesIO()
            copy.is_implicit_VR, copy.is_little_endian = self.syntax == IMPLICIT, self.syntax != BIG_ENDIAN
            with suppress(Exception):  # pydicom raises nearly anything on hostile bytes
                write_data_element(copy, self._raw.get_item(tag))
                if header.tell() + copy.tell() <= _HEADER_BYTES:
                    header.write(copy.getvalue())
        return header.getvalue()
