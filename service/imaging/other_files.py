"""Kinds of JPEG, PNG and BMP that Pillow does not read right: read by another codec, or refused with their kind."""

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported

_START_OF_FRAME: Final = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]\0")
_START_OF_SCAN: Final = b"\xff\xda"
_CONVERT_JPEG: Final = "ffmpeg -i in.jpg out.png"
_CONVERT_BMP: Final = "magick in.bmp out.png"
_BIT_FIELDS: Final = 3

_TEXTS: Final = (b"zTXt", b"iTXt", b"iCCP")

_BMP_DEPTHS: Final = (1, 4, 8, 16, 24, 32)
_BMP_COMPRESSIONS: Final = (0, 1, 2, 3, 6)


def other_jpeg(data: bytes) -> UnusableImageError:
    """Build the refusal of a JPEG that Pillow does not open: damaged, or of a kind that is read in DICOM alone."""
    if not _START_OF_FRAME.search(data[: max(data.find(_START_OF_SCAN), 0)]):
        return damaged_image("its JPEG header can't be read")
    return unsupported(
        "The JPEG is lossless, JPEG-LS, hierarchical, arithmetically coded, not of 8 bits, or of an unusual number of "
        "components, which is not read.",
        _CONVERT_JPEG,
        ErrorCode.UNSUPPORTED_ENCODING,
    )


def to_8_bits(samples: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Scale 0..65535 to 0..255, rounded; fixed, so that equal samples give equal grey in every file."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def check_png(image: Image.Image, data: bytes) -> None:
    """Refuse a PNG of 16 bits with a transparent colour: Pillow compares it with 8 bits.

    Raises:
        UnusableImageError: it is one.
    """
    if image.format == "PNG" and data[24] == 16 and "transparency" in image.info:
        raise unsupported(
            "The PNG has samples of 16 bits and a transparent colour, which is not read.",
            "magick in.png -depth 8 out.png",
            ErrorCode.UNSUPPORTED_ENCODING,
        )


class LongTextError(UnusableImageError):
    """A PNG has a text or a colour profile that is longer than Pillow reads."""


def raise_if_long_text(error: Exception) -> None:
    """Translate Pillow's error.

    Raises:
        LongTextError: `error` is about the length of a text or a profile.
    """
    if "PngImagePlugin.MAX_TEXT" in str(error):
        raise LongTextError("The PNG has a text or a colour profile that is too long.") from error


def without_text(data: bytes) -> bytes:
    """Drop the compressed texts and the colour profile of a PNG."""
    kept, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in _TEXTS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def check_bmp(data: bytes) -> None:
    """Refuse a BMP of a kind that is not read.

    Raises:
        UnusableImageError: with its depth and compression.
    """
    size, depth, compression = _bmp_kind(data)
    known = size in (12, 16, 40, 52, 56, 64, 108, 124)
    if len(data) >= 54 and not (known and depth in _BMP_DEPTHS and compression in _BMP_COMPRESSIONS):
        raise unread_bmp(data)
    colours = int.from_bytes(data[46:50], "little")
    if size >= 40 and depth <= 8 and colours > 1 << depth:
        raise unsupported(
            f"The BMP has a palette of {colours} colours, and its {depth} bits a pixel choose from {1 << depth}.",
            _CONVERT_BMP,
            ErrorCode.UNSUPPORTED_ENCODING,
        )


def unread_bmp(data: bytes) -> UnusableImageError:
    """Build the refusal of a BMP of a kind that is not read."""
    size, depth, compression = _bmp_kind(data)
    unusual = "" if compression != _BIT_FIELDS else " of unusual bit fields"
    return unsupported(
        f"The BMP has a header of {size} bytes, {depth} bits a pixel{unusual} and compression {compression}, which is "
        "not read.",
        _CONVERT_BMP,
        ErrorCode.UNSUPPORTED_ENCODING,
    )


def _bmp_kind(data: bytes) -> tuple[int, int, int]:
    """Read the size of the header, the bits of a pixel, and the number of the compression."""
    size = int.from_bytes(data[14:18], "little")
    depth = int.from_bytes(data[24:26] if size == 12 else data[28:30], "little")
    return size, depth, 0 if size == 12 else int.from_bytes(data[30:34], "little")
