"""A DICOM file to grey frames: computed tomography only, in Hounsfield units through a window.

Only the elements listed in `dicom_header` are read, so a name in the header reaches no message, log or warning. pydicom
and its decoders are imported when the first DICOM file arrives, to keep the service's start short.
"""

import logging
import math
import re
import struct
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import ErrorCode, ServiceError, UnusableImageError, damaged_image
from service.imaging.dicom_header import DECODERS, NATIVE, Header, check_header, read_header
from service.imaging.jpeg_headers import jpeg_2000_size, jpeg_size
from service.imaging.lossless_jpeg import LosslessJpegError, decode_lossless_jpeg
from service.imaging.window import LUNG, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_COMPRESSED_SLACK: Final = 64 * 1024
"""A compressed frame larger than twice its pixels and this is a lie: it would decode to more than it announces."""


class DicomFile:
    """A CT image file with a checked header.

    Attributes:
        header: what it announces.
    """

    def __init__(self, dataset: "Dataset", header: Header) -> None:
        self.header = header
        self._dataset = dataset

    def frame(self, index: int, window: Window = LUNG) -> NDArray[np.uint8]:
        """Decode one frame.

        Samples with a rescale go to Hounsfield units and through `window`. Samples of 8 bits without a rescale (or with
        an identity) are a picture already and are not changed. Deeper samples without a rescale go through the window
        of the file, or else over their whole range. MONOCHROME1 is inverted; colour becomes BT.601 luma.

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
            raise damaged_image("its pixels can't be decoded") from None

    def _decode(self, index: int) -> NDArray[Any]:
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        _silence_pydicom()
        header, data = self.header, self._dataset[0x7FE00010].value
        if header.syntax not in NATIVE:
            frame = _compressed_frame(data, header, index)
            _check_stream(frame, header)
            if DECODERS[header.syntax] == "lossless_jpeg":
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
        pixels, _ = decoder.as_array(data, index=index, decoding_plugin=DECODERS[header.syntax], **options)
        if pixels.shape[:2] != (header.rows, header.columns):
            raise damaged_image("its pixels are of another size than its header says")
        return pixels

    def _grey(self, pixels: NDArray[Any], index: int, window: Window) -> NDArray[np.uint8]:
        """Map samples to grey with a table of all sample values: cheaper than arithmetic for every pixel."""
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
        """Return slope and intercept of a frame: its own, else those of all frames, else those of the file."""
        for place in (*_groups(self._dataset, index), self._dataset):
            slope, intercept = place.get("RescaleSlope"), place.get("RescaleIntercept")
            if slope is None or intercept is None:
                continue
            if not (math.isfinite(slope) and math.isfinite(intercept) and slope != 0):
                raise damaged_image("its rescale to Hounsfield units is not a number")
            return float(slope), float(intercept)
        return None


def is_dicom(data: bytes) -> bool:
    """Whether the bytes start like DICOM: with `DICM` after a preamble, or with a plausible first element."""
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
        _silence_pydicom()
        syntax, dataset = read_header(data)
        return DicomFile(dataset, check_header(syntax, dataset))
    except ServiceError:
        raise
    except Exception:  # noqa: BLE001 - as in DicomFile.frame
        raise damaged_image("its DICOM header can't be read") from None


def _silence_pydicom() -> None:
    """Silence pydicom: its warnings quote the header, which is patient data.

    Done at each use, because a test or a library may have reset the filters. Never undone, because all threads share
    the filters.
    """
    pattern = rf"(pydicom|{re.escape(__name__)})"
    if ("ignore", None, Warning, re.compile(pattern), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=pattern)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def _compressed_frame(data: bytes, header: Header, index: int) -> bytes:
    from pydicom.encaps import get_frame

    frame = get_frame(data, index, number_of_frames=header.frames)
    if len(frame) > 2 * header.rows * header.columns * header.samples * (header.bits // 8) + _COMPRESSED_SLACK:
        raise damaged_image("a compressed frame has more bytes than its pixels need")
    return frame


def _lossless(frame: bytes, header: Header) -> NDArray[Any]:
    try:
        pixels = decode_lossless_jpeg(frame)
    except LosslessJpegError as error:
        raise damaged_image(f"its lossless JPEG can't be read: {error}") from None
    if header.samples != 1:
        raise UnusableImageError("Colour in lossless JPEG is not read.", code=ErrorCode.UNSUPPORTED_COLOUR_MODE)
    if header.signed:  # two's complement of the stored bits
        spare = 16 - header.stored
        return (pixels << spare).astype(np.int16) >> spare
    return pixels


def _check_stream(frame: bytes, header: Header) -> None:
    """Check that the compressed stream has the size in the header: decoders allocate what the stream says."""
    if header.syntax == "1.2.840.10008.1.2.5":
        return  # RLE has no size in its stream, and the number of its bytes is limited above
    size = jpeg_2000_size(frame) if header.syntax >= "1.2.840.10008.1.2.4.9" else jpeg_size(frame)
    if size != (header.columns, header.rows):
        raise damaged_image("its compressed pixels are of another size than its header says")


def _groups(dataset: "Dataset", index: int) -> list["Dataset"]:
    """Find the functional groups with the rescale of a frame in a multi-frame file (PS3.3 C.7.6.16.2.9)."""
    found: list[Dataset] = []
    for name, at in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(name) or []
        if at < len(items):
            found.extend((items[at].get("PixelValueTransformationSequence") or [])[:1])
    return found


def _own_window(dataset: "Dataset") -> Window | None:
    """Return the first window of the file, or None."""
    centre, width = (np.ravel(dataset.get(name) or []) for name in ("WindowCenter", "WindowWidth"))
    if not centre.size or not width.size:
        return None
    try:
        return Window(float(centre[0]), float(width[0]))
    except ValueError:
        return None


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
