"""Decodes DICOM files of computed tomography to grey frames: Hounsfield units through a window.

No text of the header reaches a message, log or warning, because it may be a name. pydicom and the codecs are imported
when the first DICOM file arrives, to keep the service's start short.
"""

import logging
import re
import struct
import warnings
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.dicom_checks import Header, check_frame_type, check_header
from service.imaging.dicom_header import NATIVE, PLUGINS, Elements, items_of, read_elements
from service.imaging.dicom_values import grey_table, has_hounsfield
from service.imaging.failures import decoding
from service.imaging.orientation import upright
from service.imaging.window import LUNG, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder

_FIRST_ELEMENT: Final = re.compile(
    rb"[\x02\x08]\0.\0(?:(?:UI|CS|UL|DA|TM|LO|SH|OB)|[\x02-\x80]\0\0\0)",
    re.DOTALL,  # explicit or implicit
)
"""Of a file without a preamble: group 2 or 8, with a kind of value, or a short length."""

_EMPTY_TABLE: Final = b"\xfe\xff\x00\xe0\0\0\0\0"


class DicomFile:
    """A CT image file with a checked header.

    Attributes:
        header: what it announces.
        dataset: its elements before the pixels.
    """

    def __init__(self, elements: Elements, header: Header) -> None:
        self.header = header
        self.dataset = elements.dataset
        self._elements = elements

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
            check_frame_type(functional_groups(self.dataset, index, "CTImageFrameTypeSequence"))
            turn = upright(self.dataset, functional_groups(self.dataset, index, "PlaneOrientationSequence"))
            pixels, is_signed = self._decode(index)
            if self.header.samples == 3:
                grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.uint8)
            else:
                groups = functional_groups(self.dataset, index, "PixelValueTransformationSequence")
                grey = grey_table(self.dataset, groups, self.header, is_signed, window).take(pixels)
            return np.ascontiguousarray(turn(grey))

    def uses_window(self, index: int) -> bool:
        """Whether a frame has Hounsfield units, so that `window` of `frame` applies.

        Raises:
            UnusableImageError: its rescale is malformed.
        """
        groups = functional_groups(self.dataset, index, "PixelValueTransformationSequence")
        return has_hounsfield(self.dataset, groups, self.header)

    @cached_property
    def _pixels(self) -> bytes:
        is_native = self.header.syntax in NATIVE
        pixels = self._elements.pixels
        return pixels if is_native else _without_needless_table(pixels, self.header.frames)

    def _decode(self, index: int) -> tuple[NDArray[Any], bool]:
        """Decode a frame with all bits of its samples, also those above BitsStored.

        Returns:
            uint8 or uint16 (rows, columns), or uint8 (rows, columns, 3); and whether the samples are signed: if header
            and JPEG 2000 stream disagree, the stream decides.
        """
        header = self.header
        options: dict[str, Any] = {
            "rows": header.rows,
            "columns": header.columns,
            "number_of_frames": header.frames,
            "samples_per_pixel": header.samples,
            "bits_allocated": header.bits,
            "bits_stored": header.bits,
            "pixel_representation": 0,
            "photometric_interpretation": header.photometric,
            "planar_configuration": header.planar,
            "pixel_keyword": "PixelData",
            "pixel_vr": self._elements.pixel_vr,
            "apply_j2k_sign_correction": False,
            "apply_jls_sign_correction": False,
        }
        try:
            pixels, properties = _decoder(header.syntax).as_array(self._pixels, index=index, **options)
        except RuntimeError as error:  # from a plugin; it has the messages of its errors
            from service.imaging.codecs import unread_stream

            raise unread_stream(str(error)) or error from None
        return pixels, header.signed or properties["pixel_representation"] == 1


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
        elements = read_elements(data)
        return DicomFile(elements, check_header(elements, is_whole=is_whole))


def silence_readers() -> None:
    """Silence the warnings of pydicom, Pillow and tifffile.

    pydicom's quote the header, which is patient data. The others are about a client's file, and Python would keep each
    distinct text for ever. Done at each use, because a test or a library may have reset the filters. Never undone,
    because all threads share the filters.
    """
    pattern = r"(pydicom|PIL|tifffile|service\.imaging)"
    if ("ignore", None, Warning, re.compile(pattern), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=pattern)
    for name in ("pydicom", "tifffile"):
        if (logger := logging.getLogger(name)).level <= logging.CRITICAL:
            logger.setLevel(logging.CRITICAL + 1)  # clears a cache of all loggers


@cache
def _decoder(syntax: str) -> "Decoder":
    """Build pydicom's decoder of a transfer syntax, with one plugin if it is compressed."""
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID, RLELossless

    uid = UID(syntax)
    decoder = Decoder(uid if uid.is_transfer_syntax else RLELossless)  # pydicom 3.0 does not know JPEG XL
    if syntax in PLUGINS:
        decoder.add_plugin("plugin", PLUGINS[syntax])
    return decoder


def _without_needless_table(pixels: bytes, frames: int) -> bytes:
    """Drop the table of offsets, which is often wrong, unless frames have several fragments."""
    from pydicom.encaps import parse_fragments

    (length,) = struct.unpack_from("<I", pixels, 4)
    fragments = pixels[8 + length :]
    count, _ = parse_fragments(fragments)
    return _EMPTY_TABLE + fragments if frames in (1, count) else pixels


def functional_groups(dataset: "Dataset", index: int, name: str) -> list["Dataset"]:
    """Find the functional groups of a frame (PS3.3 C.7.6.16): first its own, then the shared ones."""
    groups: list[Dataset] = []
    for sequence, at in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        for item in items_of(dataset, sequence)[at : at + 1]:
            groups.extend(items_of(item, name)[:1])
    return groups
