"""Decodes DICOM files of computed tomography to grey frames: Hounsfield units through a window.

No text of the header reaches a message, log or warning, because it may be a name. pydicom is imported when the first
DICOM file arrives, to keep the service's start short.
"""

import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.dicom_checks import check_content, check_frame_type, check_syntax, read_header
from service.imaging.dicom_frames import decode_frame, split_frames
from service.imaging.dicom_header import Header, Reader
from service.imaging.dicom_values import grey_table, has_hounsfield
from service.imaging.failures import decoding
from service.imaging.orientation import upright
from service.imaging.window import LUNG, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_FIRST_ELEMENT: Final = re.compile(
    rb"[\x02\x08]\0.\0(?:(?:UI|CS|UL|DA|TM|LO|SH|OB)|[\x02-\x80]\0\0\0)",
    re.DOTALL,  # explicit or implicit
)
"""Of a file without a preamble: group 2 or 8, with a kind of value, or a short length."""


class DicomFile:
    """A CT image file with a checked header.

    Attributes:
        header: description of its pixels.
        dataset: its elements before the pixels.
    """

    def __init__(
        self, header: Header, dataset: "Dataset", reader: Reader, frames: Sequence[bytes | memoryview]
    ) -> None:
        self.header = header
        self.dataset = dataset
        self._reader = reader
        self._frames = frames

    def frame(self, index: int, window: Window = LUNG) -> NDArray[np.uint8]:
        """Decode one frame, and bring it upright.

        Samples with a rescale go to Hounsfield units and through `window`. Samples of 8 bits without a rescale (or with
        an identity) are a picture already: they are not changed, except that MONOCHROME1 is inverted. Deeper samples
        without a rescale are refused. Colour becomes BT.601 luma. Padding is black.

        Args:
            index: which, from 0.
            window: for Hounsfield units.

        Returns:
            uint8 (rows, columns), or (columns, rows) of a slice that was turned by a quarter.

        Raises:
            UnusableImageError: damaged, a localizer, not axial, of a kind that is not read, or an element is malformed.
        """
        silence_readers()
        with decoding("its pixels can't be decoded; they are truncated or damaged"):
            check_frame_type(self.dataset, index)
            turn = upright(self.dataset, index)
            pixels = decode_frame(self._frames[index], self.header)
            if self.header.samples == 3:
                grey = np.asarray(Image.fromarray(pixels).convert("L"))
            else:  # signed by its header or its JPEG 2000 stream
                header = replace(self.header, signed=self.header.signed or pixels.dtype.kind == "i")
                table = grey_table(self.dataset, index, header, window)
                grey = table.take(pixels.astype(f"u{header.bits // 8}", copy=False))
            return np.ascontiguousarray(turn(grey))

    def series_header(self) -> bytes:
        """See `Reader.series_header`."""
        return self._reader.series_header()

    def uses_window(self, index: int) -> bool:
        """Whether a frame has Hounsfield units, so that `window` of `frame` applies.

        Raises:
            UnusableImageError: its rescale is malformed.
        """
        return has_hounsfield(self.dataset, index, self.header)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes start like DICOM: `DICM`, also after a preamble, or a plausible first element."""
    return data[128:132] == b"DICM" or data[:6] == b"DICM\x02\x00" or _FIRST_ELEMENT.match(data) is not None


def open_dicom(data: bytes, *, is_whole: bool = True) -> DicomFile:
    """Read the header of a CT image file; no pixel is decoded.

    Args:
        data: a file, with or without preamble.
        is_whole: False if it may end within its pixels, which then can't be decoded.

    Raises:
        UnusableImageError: damaged, not CT, without pixels, or of a kind that is not read; the detail says which. It
            holds nothing of the header but modality, transfer syntax, sizes and names of elements.
    """
    silence_readers()
    with decoding("its DICOM header can't be read"):
        reader = Reader(data)
        check_syntax(reader.syntax)
        dataset = reader.read()
        check_content(dataset, reader)
        header = read_header(dataset, reader.syntax)
        return DicomFile(header, dataset, reader, split_frames(reader, header) if is_whole else [])


def silence_readers() -> None:
    """Silence the warnings of pydicom, Pillow and tifffile, which quote the header or speak of a client's file.

    Done at each use, because a test or a library may have reset the filters. Never undone, because all threads share
    the filters.
    """
    warnings.filterwarnings("ignore", module=r"(pydicom|PIL|tifffile|service\.imaging)")
    for name in ("pydicom", "tifffile"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
