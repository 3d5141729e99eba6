"""Decodes DICOM files of computed tomography to grey frames: Hounsfield units through a window.

Only the elements listed in `dicom_header` are read, so a name in the header reaches no message, log or warning. pydicom
and the codecs are imported when the first DICOM file arrives, to keep the service's start short.
"""

import logging
import re
import struct
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import damaged_image, limit_exceeded
from service.imaging.codecs import decode_stream
from service.imaging.dicom_checks import Header, check_frame_type, check_header, upright
from service.imaging.dicom_header import NATIVE, RLE, read_elements
from service.imaging.dicom_values import grey_table, has_hounsfield
from service.imaging.failures import decoding
from service.imaging.window import LUNG, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_COMPRESSED_SLACK: Final = 64 * 1024
"""Bytes. A compressed frame may have twice the size of its pixels and this; larger ones are refused."""

_ITEM: Final = b"\xfe\xff\x00\xe0"


class DicomFile:
    """A CT image file with a checked header.

    Attributes:
        header: what it announces.
        dataset: its elements, of those that `dicom_header` lists.
    """

    def __init__(self, dataset: "Dataset", header: Header) -> None:
        self.header = header
        self.dataset = dataset

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
        with decoding("its pixels can't be decoded"):
            check_frame_type(functional_groups(self.dataset, index, "CTImageFrameTypeSequence"))
            turn = upright(self.dataset, functional_groups(self.dataset, index, "PlaneOrientationSequence"))
            pixels = self._decode(index)
            if self.header.samples == 3:
                grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.uint8)
            else:
                grey = self._grey(pixels, index, window)
            return np.ascontiguousarray(turn(grey))

    def uses_window(self, index: int) -> bool:
        """Whether a frame has Hounsfield units, so that `window` of `frame` applies.

        Raises:
            UnusableImageError: its rescale is malformed.
        """
        groups = functional_groups(self.dataset, index, "PixelValueTransformationSequence")
        return has_hounsfield(self.dataset, groups, self.header)

    def _decode(self, index: int) -> NDArray[Any]:
        header, data = self.header, self.dataset.PixelData
        if header.syntax not in NATIVE:
            frame = _compressed_frame(data, header, index)
            if header.syntax != RLE:
                size = (header.rows, header.columns, header.samples)
                return decode_stream(frame, header.syntax, *size, header.photometric)
        elif header.swapped:
            data = np.frombuffer(data[: len(data) // 2 * 2], np.uint16).byteswap().tobytes()
        return _pixels_of_pydicom(data, header, index)

    def _grey(self, pixels: NDArray[Any], index: int, window: Window) -> NDArray[np.uint8]:
        """Map samples to grey. If header and JPEG 2000 stream disagree on the sign, the stream decides."""
        kind = "i" if pixels.dtype.kind == "i" else "u"
        size = self.header.bits // 8
        samples = pixels.astype(f"{kind}{size}", copy=False)
        groups = functional_groups(self.dataset, index, "PixelValueTransformationSequence")
        table = grey_table(self.dataset, groups, self.header, self.header.signed or kind == "i", window)
        return np.asarray(table[np.ascontiguousarray(samples).view(f"u{size}")], dtype=np.uint8)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes start like DICOM: `DICM`, also after a preamble, or a plausible first element."""
    return data[128:132] == b"DICM" or data[:6] == b"DICM\x02\x00" or _begins_with_element(data)


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
        return DicomFile(elements.dataset, check_header(elements, is_whole=is_whole))


def silence_readers() -> None:
    """Silence the warnings of pydicom and Pillow.

    pydicom's quote the header, which is patient data. Pillow's are about a client's file, and Python would keep each
    distinct text for ever. Done at each use, because a test or a library may have reset the filters. Never undone,
    because all threads share the filters.
    """
    pattern = r"(pydicom|PIL|service\.imaging)"
    if ("ignore", None, Warning, re.compile(pattern), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=pattern)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def _pixels_of_pydicom(data: bytes, header: Header, index: int) -> NDArray[Any]:
    """Decode native or RLE pixels with all their bits, including bits above BitsStored."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

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
        "pixel_vr": "OW" if header.bits > 8 else "OB",
    }
    plugin = "pydicom" if header.syntax == RLE else ""
    pixels, _ = get_decoder(UID(header.syntax)).as_array(data, index=index, decoding_plugin=plugin, **options)
    if pixels.shape[:2] != (header.rows, header.columns):
        raise damaged_image("its pixels are of another size than its header says")
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _compressed_frame(data: bytes, header: Header, index: int) -> bytes:
    """Return the stream of a frame.

    With one frame it is all fragments; with as many fragments as frames it is one fragment; else pydicom finds it.
    """
    from pydicom.encaps import get_frame

    fragments = _fragments(data)
    if header.frames == 1:
        frame = b"".join(fragments)
    elif len(fragments) == header.frames:
        frame = fragments[index]
    else:
        frame = get_frame(data, index, number_of_frames=header.frames)
    limit = 2 * header.rows * header.columns * header.samples * (header.bits // 8) + _COMPRESSED_SLACK
    if len(frame) > limit:
        raise limit_exceeded(f"a compressed frame has {len(frame)} bytes, and {limit} are allowed for its size")
    return frame


def _fragments(data: bytes) -> list[bytes]:
    """Split encapsulated pixel data (PS3.5 A.4) into fragments, without the offset table, which is often wrong."""
    found, at = [], 0
    while data[at : at + 4] == _ITEM:
        (length,) = struct.unpack_from("<I", data, at + 4)
        if at + 8 + length > len(data):
            raise damaged_image("its compressed pixels are truncated")
        found.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    if len(found) < 2:
        raise damaged_image("its compressed pixels are truncated, or have no fragments")
    return found[1:]


def functional_groups(dataset: "Dataset", index: int, name: str) -> list["Dataset"]:
    """Find the functional groups of a frame (PS3.3 C.7.6.16): first its own, then the shared ones."""
    found: list[Dataset] = []
    for sequence, at in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(sequence) or []
        if at < len(items):
            found.extend((items[at].get(name) or [])[:1])
    return found


def _begins_with_element(data: bytes) -> bool:
    """Whether the bytes start with an element of group 2 or 8, then one of group 2, 8 or 16, without preamble."""
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
