"""TIFF files: the first full image among the pages, and samples beyond 8 bits, by libtiff of imagecodecs.

Pillow reads usual TIFFs of up to 8 bits, but misreads deeper ones: it ignores WhiteIsZero, the number of bits and the
sign. imagecodecs raises errors of a file instead of printing them on standard error.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported
from service.imaging.failures import decoding

_CONVERT: Final = "magick in.tif -depth 8 out.png"

_COMPRESSIONS: Final = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000))
"""None, CCITT, LZW, JPEG, Deflate (two numbers), PackBits, LZMA, Zstandard."""

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 254, 256, 257, 258, 259, 262, 274
_SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _EXTRA, _FORMAT = 277, 284, 322, 323, 338, 339
_REDUCED_OR_MASK: Final = 0b101
_MAX_PAGES: Final = 100
"""Thumbnails and masks that are looked at."""


@dataclass(frozen=True, slots=True)
class TiffPage:
    """Tags of the page with the image.

    Attributes:
        index: its number among the pages.
        is_followed: whether another page is neither a thumbnail nor a mask.
        width, height: in pixels.
        bits: of a sample, the largest.
        samples: of a pixel.
        sample_format: 1 unsigned, 2 signed, 3 floating point.
        photometric: 0 WhiteIsZero, 1 BlackIsZero, 2 RGB, 3 palette, and others.
        compression: number of the compression.
        planar: whether each colour is stored as its own plane.
        extra: whether the last sample is transparency.
        orientation: as in EXIF, 1 to 8.
        tile_width, tile_height: of a tile, which is unpacked whole; of the page without tiles.
    """

    index: int
    is_followed: bool
    width: int
    height: int
    bits: int
    samples: int
    sample_format: int
    photometric: int
    compression: int
    planar: bool
    extra: bool
    orientation: int
    tile_width: int
    tile_height: int

    @property
    def is_usual(self) -> bool:
        """Whether Pillow reads the page correctly."""
        return self.bits <= 8 and self.sample_format in (1, 4)


def is_tiff(data: bytes) -> bool:
    """Whether the bytes start like a TIFF."""
    return data[:4] in (b"II*\0", b"MM\0*")


def read_page(data: bytes) -> TiffPage:
    """Find the first page that is neither a thumbnail nor a mask.

    Raises:
        UnusableImageError: the tags can't be read.
    """
    with decoding("its TIFF directory can't be read"):
        first = picture = None
        for index, tags in enumerate(_directories(data)):
            is_full = not int(tags.get(_SUBFILE, 0)) & _REDUCED_OR_MASK
            if is_full and picture is not None:
                return replace(picture, is_followed=True)
            page = _page(index, tags) if is_full or index == 0 else None
            first, picture = first or page, picture or (page if is_full else None)
        picture = picture or first
        if picture is None:
            raise damaged_image("it has no TIFF directory")
        return picture


def _page(index: int, tags: TiffImagePlugin.ImageFileDirectory_v2) -> TiffPage:
    width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    return TiffPage(
        index=index,
        is_followed=False,
        width=width,
        height=height,
        bits=max(_numbers(tags.get(_BITS, 1))),
        samples=int(tags.get(_SAMPLES, 1)),
        sample_format=max(_numbers(tags.get(_FORMAT, 1))),
        photometric=int(tags.get(_PHOTOMETRIC, 1)),
        compression=int(tags.get(_COMPRESSION, 1)),
        planar=int(tags.get(_PLANAR, 1)) == 2,
        extra=bool(tags.get(_EXTRA)),
        orientation=int(tags.get(_ORIENTATION, 1)),
        tile_width=int(tags.get(_TILE_WIDTH, width)),
        tile_height=int(tags.get(_TILE_HEIGHT, height)),
    )


def unread_page(page: TiffPage) -> UnusableImageError:
    """Build the refusal of a usual page that Pillow does not open: damaged if it is of a plain kind."""
    samples = {0: 1, 1: 1, 2: 3, 3: 1}.get(page.photometric)
    if page.samples == samples and page.bits in ((8,) if samples == 3 else (1, 2, 4, 8)):
        return damaged_image("its TIFF tags are invalid")
    return unsupported(
        f"The TIFF has {page.samples} samples of {page.bits} bits in photometric interpretation {page.photometric}, "
        "which is not read; send grey or RGB.",
        _CONVERT,
        ErrorCode.UNSUPPORTED_ENCODING,
    )


def decode_page(data: bytes, page: TiffPage) -> NDArray[Any]:
    """Decode the samples of a page.

    Returns:
        (height, width) or (height, width, samples), as they are stored.

    Raises:
        UnusableImageError: damaged, or of a compression that is not read.
    """
    import imagecodecs

    if page.compression not in _COMPRESSIONS:
        raise unsupported(
            f"The TIFF has compression {page.compression}, which is not read.",
            _CONVERT,
            ErrorCode.UNSUPPORTED_ENCODING,
        )
    with decoding("it is truncated or damaged; its TIFF strips can't be decoded"):
        return np.asarray(imagecodecs.tiff_decode(data, index=page.index))


def deep_grey(data: bytes, page: TiffPage) -> Image.Image:
    """Decode a page whose samples have 9 to 16 bits, scaled from their full range.

    Raises:
        UnusableImageError: signed or floating-point samples, other depths, or colours without a grey value.
    """
    kind = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(page.sample_format, "unknown")
    if page.sample_format != 1 or not 8 < page.bits <= 16:
        raise unsupported(
            f"The TIFF has {kind} samples of {page.bits} bits, which have no defined grey value; send unsigned "
            "samples of 8 to 16 bits.",
            _CONVERT,
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    colours = {0: 1, 1: 1, 2: 3}.get(page.photometric)
    if colours is None or page.planar or page.samples != colours + int(page.extra):
        raise unsupported(
            f"The TIFF has {page.samples} samples a pixel of {page.bits} bits in photometric interpretation "
            f"{page.photometric}, which is not read; send grey or RGB.",
            _CONVERT,
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    pixels = decode_page(data, page).reshape(page.height, page.width, page.samples)
    full = (1 << page.bits) - 1
    grey = ((pixels.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
    return _picture(grey, page, colours)


def _picture(grey: NDArray[np.uint8], page: TiffPage, colours: int) -> Image.Image:
    colour = grey[..., :colours]
    if page.photometric == 0:
        colour = 255 - colour
    picture = Image.fromarray(colour[..., 0] if colours == 1 else np.ascontiguousarray(colour)).convert("L")
    if page.extra:  # black
        picture = Image.composite(picture, Image.new("L", picture.size), Image.fromarray(grey[..., -1]))
    picture.getexif()[_ORIENTATION] = page.orientation
    return picture


def _directories(data: bytes) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """Yield the directories, one in memory at a time: their tags may share bytes."""
    file, seen = io.BytesIO(data), set[int]()
    at = int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big")
    while at and at not in seen and len(seen) < _MAX_PAGES:
        seen.add(at)
        file.seek(at)
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        tags.load(file)
        yield tags
        at = tags.next


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(each) for each in value) if isinstance(value, tuple) else (int(value),)
