"""DICOM files of computed tomography: checked when they are opened, decoded frame by frame.

No text of the header reaches a message, log or warning, because it may be a name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.dicom.checks import check_content, check_frame_type, check_syntax
from service.imaging.dicom.elements import directions
from service.imaging.dicom.frames import decode_frame, split_frames
from service.imaging.dicom.grey import grey_table, has_hounsfield
from service.imaging.dicom.header import Header, read_header
from service.imaging.dicom.reader import Reader
from service.imaging.failures import decoding
from service.imaging.orientation import Turn
from service.imaging.window import LUNG, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


DAMAGED_HEADER: Final = "its DICOM header can't be read"


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A CT image file with a checked header.

    Attributes:
        header: description of its pixels.
        dataset: its elements before the pixels.
        reader: of its bytes.
        frames: its pixels as they are stored; empty if the file is not whole.
    """

    header: Header
    dataset: "Dataset"
    reader: Reader
    frames: Sequence[bytes | memoryview]

    def axes(self, index: int) -> NDArray[np.float64] | None:
        """Read the directions of a frame along a row and along a column, (2, 3); None if it has no valid ones.

        Raises:
            UnusableImageError: the frame is a localizer, or its directions are malformed.
        """
        check_frame_type(self.dataset, index)
        return directions(self.dataset, index)

    def frame(self, index: int, turn: Turn, window: Window = LUNG) -> NDArray[np.uint8]:
        """Decode one frame, and bring it upright.

        Samples with a rescale go to Hounsfield units and through `window`. Samples of 8 bits without a rescale (or with
        an identity) are a picture already: they are not changed, except that MONOCHROME1 is inverted. Deeper samples
        without a rescale are refused. Colour becomes BT.601 luma. Padding is black.

        Args:
            index: which, from 0.
            turn: steps that bring it upright, by its `axes`.
            window: for Hounsfield units.

        Returns:
            uint8 (rows, columns), or (columns, rows) of a slice that was turned by a quarter.

        Raises:
            UnusableImageError: damaged, of a kind that is not read, or an element is malformed.
        """
        with decoding("its pixels can't be decoded; they are truncated or damaged"):
            pixels = decode_frame(self.frames[index], self.header)
            if self.header.samples == 3:
                grey = np.asarray(Image.fromarray(pixels).convert("L"))
            else:  # signed by its header or its JPEG 2000 stream
                header = replace(self.header, signed=self.header.signed or pixels.dtype.kind == "i")
                table = grey_table(self.dataset, index, header, window)
                grey = table.take(pixels.astype(f"u{header.bits // 8}", copy=False))
            return np.ascontiguousarray(turn(grey))

    def uses_window(self, index: int) -> bool:
        """Whether a frame has Hounsfield units, so that `window` of `frame` applies."""
        return has_hounsfield(self.dataset, index, self.header)


def open_dicom(data: bytes, *, is_whole: bool = True) -> DicomFile:
    """Read the header of a CT image file; no pixel is decoded.

    Args:
        data: a file, with or without preamble.
        is_whole: False if it may end within its pixels, which then can't be decoded.

    Raises:
        UnusableImageError: damaged, not CT, without pixels, or of a kind that is not read; the detail says which. It
            holds nothing of the header but modality, transfer syntax, sizes and names of elements.
    """
    with decoding(DAMAGED_HEADER):
        reader = Reader(data)
        check_syntax(reader.syntax)
        dataset = reader.read()
        check_content(dataset, reader)
        header = read_header(dataset, reader.syntax)
        return DicomFile(header, dataset, reader, split_frames(reader, header) if is_whole else [])
