"""Kinds of JPEG, PNG and BMP that Pillow does not read right: read by another codec, or refused with their kind."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported
from service.imaging.codecs import JPEG_LS_SYNTAXES, JPEG_SYNTAXES, decode_stream
from service.imaging.failures import decoding
from service.imaging.jpeg_headers import jpeg_header, unread_process

_JPEG_LS_FRAME: Final = b"\xff\xf7"

_CONVERT_JPEG: Final = "magick in.jpg out.png"
_CONVERT_BMP: Final = "magick in.bmp out.png"
_ORIENTATION: Final = 274
_BIT_FIELDS: Final = 3

_TEXTS: Final = (b"zTXt", b"iTXt", b"iCCP")

_BMP_DEPTHS: Final = (1, 4, 8, 16, 24, 32)
_BMP_COMPRESSIONS: Final = (0, 1, 2, 3, 6)


def read_other_jpeg(data: bytes, check_size: Callable[[int, int], None]) -> Image.Image:
    """Decode a lossless JPEG, a JPEG of 12 bits, or a JPEG-LS file; samples are scaled from their full range.

    Args:
        data: a whole file.
        check_size: raises for a width and height that are refused.

    Returns:
        Mode `L`.

    Raises:
        UnusableImageError: damaged, of a size that is refused, or of a kind that is not read.
    """
    header = jpeg_header(data)
    if header is None:
        raise damaged_image("its JPEG header can't be read")
    check_size(header.columns, header.rows)
    if header.components not in (1, 3) or (header.components == 3 and header.precision != 8):
        raise unsupported(
            f"The JPEG has {header.components} components of {header.precision} bits, which is not read; send grey, or "
            "colour of 8 bits.",
            _CONVERT_JPEG,
            ErrorCode.UNSUPPORTED_ENCODING,
        )
    process = unread_process(data)
    if process is not None:
        raise unsupported(f"The JPEG is {process}, which is not read.", _CONVERT_JPEG, ErrorCode.UNSUPPORTED_ENCODING)
    syntax = JPEG_LS_SYNTAXES[0] if _JPEG_LS_FRAME in data[: data.find(b"\xff\xda")] else JPEG_SYNTAXES[0]
    photometric = "MONOCHROME2" if header.components == 1 else "RGB"
    with decoding("its JPEG stream can't be decoded"):
        pixels = decode_stream(data, syntax, header.rows, header.columns, header.components, photometric)
    full = (1 << header.precision) - 1
    grey = (pixels.astype(np.uint32) * 255 + full // 2) // full
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("L")


def to_8_bits(samples: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Scale 0..65535 to 0..255, rounded; fixed, so that equal samples give equal grey in every file."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def is_deep_colour_with_clear(image: Image.Image, data: bytes) -> bool:
    """Whether a PNG has colours of 16 bits, one of which is transparent: Pillow compares it with 8 bits."""
    return image.format == "PNG" and data[24] == 16 and isinstance(image.info.get("transparency"), tuple)


def read_deep_png(data: bytes, opened: Image.Image) -> Image.Image:
    """Decode a PNG of 16-bit colours, scaled from their full range, with its transparent colour over black.

    Args:
        data: a whole file.
        opened: the same, opened by Pillow.

    Returns:
        Mode `L`, with the orientation of `opened` still to be applied.

    Raises:
        UnusableImageError: damaged.
    """
    import imagecodecs

    with decoding("its PNG stream can't be decoded"):
        pixels = np.asarray(imagecodecs.png_decode(data))
        scaled = to_8_bits(pixels)
        grey = Image.fromarray(np.ascontiguousarray(scaled[..., :3])).convert("L")
        grey = Image.composite(grey, Image.new("L", grey.size), Image.fromarray(scaled[..., 3]))
    grey.getexif()[_ORIENTATION] = opened.getexif().get(_ORIENTATION, 1)
    return grey


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
