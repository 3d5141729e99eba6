"""TIFF files: tifffile finds the first full image among the pages, and decodes samples beyond 8 bits.

Pillow reads usual TIFFs of up to 8 bits, but misreads deeper ones: it ignores WhiteIsZero, the number of bits and the
sign. tifffile is imported when the first TIFF arrives.
"""

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported
from service.imaging.failures import decoding

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_CONVERT: Final = "magick in.tif -depth 8 out.png"

_COMPRESSIONS: Final = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000))
"""None, CCITT, LZW, JPEG, Deflate (two numbers), PackBits, LZMA, Zstandard."""

_ORIENTATION: Final = 274
_NUMBERS: Final = (
    "bitspersample", "compression", "imagelength", "imagewidth", "photometric", "planarconfig", "sampleformat",
    "samplesperpixel", "subfiletype", "tilelength", "tilewidth",
)  # fmt: skip
"""Attributes of a page that are numbers in tifffile only if their tags are valid."""

_REDUCED_OR_MASK: Final = 0b101


def open_tiff(data: bytes) -> "TiffFile":
    """Read the first directory of a file.

    Raises:
        UnusableImageError: it can't be read.
    """
    from tifffile import TiffFile

    with decoding("its TIFF directory can't be read"):
        return TiffFile(io.BytesIO(data))


def full_page(file: "TiffFile") -> tuple["TiffPage", bool]:
    """Find the first page that is neither a thumbnail nor a mask.

    Returns:
        The page, or the first one if there is no full page; and whether another full page follows.

    Raises:
        UnusableImageError: a directory can't be read, or the compression of the page is not read.
    """
    with decoding("its TIFF directory can't be read"):
        pages: list[Any] = list(file.pages)
    if not pages or not all(isinstance(getattr(page, name), int) for page in pages for name in _NUMBERS):
        raise damaged_image("its TIFF tags are invalid")
    full = [page for page in pages if not page.subfiletype & _REDUCED_OR_MASK]
    page = (full or pages)[0]
    if page.compression not in _COMPRESSIONS:
        raise unsupported(
            f"The TIFF has compression {int(page.compression)}, which is not read.",
            _CONVERT,
            ErrorCode.UNSUPPORTED_ENCODING,
        )
    return page, len(full) > 1


def is_usual(page: "TiffPage") -> bool:
    """Whether Pillow reads the page correctly."""
    return page.bitspersample <= 8 and page.sampleformat in (1, 4)


def unread_page(page: "TiffPage") -> UnusableImageError:
    """Build the refusal of a usual page that Pillow does not open: damaged if it is of a plain kind."""
    samples = {0: 1, 1: 1, 2: 3, 3: 1}.get(page.photometric)
    if page.samplesperpixel == samples and page.bitspersample in ((8,) if samples == 3 else (1, 2, 4, 8)):
        return damaged_image("its TIFF tags are invalid")
    return _unread_colours(page, ErrorCode.UNSUPPORTED_ENCODING)


def deep_grey(page: "TiffPage") -> Image.Image:
    """Decode a page whose samples have 9 to 16 bits, scaled from their full range.

    Raises:
        UnusableImageError: signed or floating-point samples, other depths, or colours without a grey value.
    """
    bits = page.bitspersample
    if page.sampleformat != 1 or not 8 < bits <= 16:
        kind = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(page.sampleformat, "unknown")
        raise unsupported(
            f"The TIFF has {kind} samples of {bits} bits, which have no defined grey value; send unsigned samples of 8 "
            "to 16 bits.",
            _CONVERT,
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    colours = {0: 1, 1: 1, 2: 3}.get(page.photometric)
    if colours is None or page.planarconfig != 1 or page.samplesperpixel != colours + bool(page.extrasamples):
        raise _unread_colours(page, ErrorCode.UNSUPPORTED_COLOUR_MODE)
    with decoding("it is truncated or damaged; its TIFF strips can't be decoded"):
        pixels = page.asarray(maxworkers=1).reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    full = (1 << bits) - 1
    grey = ((pixels.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
    colour = 255 - grey[..., :colours] if page.photometric == 0 else grey[..., :colours]
    picture = Image.fromarray(np.ascontiguousarray(colour.squeeze(-1) if colours == 1 else colour)).convert("L")
    if page.extrasamples:  # transparency, over black
        picture = Image.composite(picture, Image.new("L", picture.size), Image.fromarray(grey[..., -1]))
    picture.getexif()[_ORIENTATION] = page.tags.valueof(_ORIENTATION, 1)
    return picture


def _unread_colours(page: "TiffPage", code: ErrorCode) -> UnusableImageError:
    return unsupported(
        f"The TIFF has {page.samplesperpixel} samples of {page.bitspersample} bits in photometric interpretation "
        f"{int(page.photometric)}, which is not read; send grey or RGB.",
        _CONVERT,
        code,
    )
