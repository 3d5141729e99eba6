"""Image files with wrong headers, written byte by byte."""

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def picture(mode: str = "L", side: int = 96) -> Image.Image:
    """A smooth picture in `mode`."""
    grey = Image.linear_gradient("L").resize((side, side))
    ImageDraw.Draw(grey).ellipse((side // 4, side // 4, side // 2, side // 2), fill=30)
    return grey.convert(mode)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """The file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def encoded_tiff(samples: NDArray[Any], **options: Any) -> bytes:
    """A valid TIFF of these samples, also beyond 8 bits."""
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width: int, height: int, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def interlaced_png() -> bytes:
    """In Adam7's seven passes (PNG specification, 8.2), which Pillow reads and does not write."""
    grey = np.asarray(picture(side=64))
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = (row for top, left, down, right in passes for row in grey[top::down, left::right])
    data = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bmp_that_claims(width: int, height: int) -> bytes:
    return (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 1000, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(900)
    )


def webp_that_claims(width: int, height: int) -> bytes:
    """A lossy frame's sides are 14 bits each, behind its start code (RFC 6386, 9.1)."""
    whole = bytearray(encoded(picture("RGB", 16), "WEBP"))
    at = whole.index(b"\x9d\x01\x2a") + 3
    whole[at : at + 4] = struct.pack("<HH", width, height)
    return bytes(whole)


Tag = tuple[int, int, int, int]
"""Number, type, count, value or place of a TIFF tag."""

_SHORT, _LONG = 3, 4


def directory(tags: Iterable[Tag], following: int = 0) -> bytes:
    """A TIFF directory; tags with the same number keep their order."""
    ordered = sorted(tags, key=lambda tag: tag[0])
    entries = b"".join(struct.pack("<HHII", *tag) for tag in ordered)
    return struct.pack("<H", len(ordered)) + entries + struct.pack("<I", following)


def page(width: int, height: int, compression: int, place: int, size: int) -> list[Tag]:
    """Tags of an 8-bit grey page with one strip."""
    return [(256, _LONG, 1, width), (257, _LONG, 1, height), (258, _SHORT, 1, 8), (259, _SHORT, 1, compression),
            (262, _SHORT, 1, 1), (273, _LONG, 1, place), (277, _SHORT, 1, 1), (278, _LONG, 1, height),
            (279, _LONG, 1, size)]  # fmt: skip


def tiff(payload: bytes, tags: Iterable[Tag]) -> bytes:
    """A TIFF with its directory behind the payload, which begins at byte 8."""
    return b"II*\0" + struct.pack("<I", 8 + len(payload)) + payload + directory(tags)


def tiff_that_claims(width: int, height: int) -> bytes:
    return tiff(bytes(4096), page(width, height, 1, 8, width * height % 2**32))


def tiff_in_a_circle() -> bytes:
    """A directory that follows itself."""
    return b"II*\0" + struct.pack("<I", 8) + directory(page(32, 32, 1, 200, 32 * 32), 8) + bytes(4096)
