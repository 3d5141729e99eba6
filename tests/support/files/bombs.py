"""Small files that need much time or memory: the size that one parser reads is not the one that another decodes."""

import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from service.imaging.dicom.reader import DEFLATED, EXPLICIT
from tests.support.files.dicoms import ct, encapsulated
from tests.support.files.lying_files import chunk, directory, encoded, page, tiff

_BYTES, _SHORT, _LONG, _SIGNED_LONG_8 = 7, 3, 4, 17


def deflated(size: int) -> bytes:
    """Zeros as a zlib stream, made piece by piece."""
    stream = zlib.compressobj(9)
    piece = bytes(1 << 20)
    return b"".join(stream.compress(piece) for _ in range(size >> 20)) + stream.flush()


def tiff_of_one_large_tile(side: int = 16384) -> bytes:
    """64 x 64 pixels in one tile."""
    data = deflated(side * side)
    tags = [tag for tag in page(64, 64, 8, 8, len(data)) if tag[0] not in (273, 278, 279)]
    return tiff(
        data, [*tags, (322, _LONG, 1, side), (323, _LONG, 1, side), (324, _LONG, 1, 8), (325, _LONG, 1, len(data))]
    )


def tiff_of_two_widths(side: int = 16384) -> bytes:
    """Width and height twice, first of a type that libtiff alone knows; Pillow reads 64 x 64."""
    data = deflated(side * side)
    place = 8 + len(data)
    first = [(256, _SIGNED_LONG_8, 1, place), (257, _SIGNED_LONG_8, 1, place)]
    return tiff(data + struct.pack("<q", side), [*first, *page(64, 64, 8, 8, len(data))])


def tiff_of_shared_bytes(pages: int = 100, size: int = 5_000_000) -> bytes:
    """Pages that each have one tag over the same bytes."""
    start, room = 8 + pages * 200, 200
    parts = []
    for number in range(pages):
        following = 8 + (number + 1) * room if number + 1 < pages else 0
        tags = [*page(64, 64, 1, start, 4096), (40000, _BYTES, size, start)]
        parts.append(directory(tags, following).ljust(room, b"\0"))
    return b"II*\0" + struct.pack("<I", 8) + b"".join(parts) + bytes(size)


def tiff_of_overlapping_directories(pages: int = 20, entries: int = 65535) -> bytes:
    """Directories of many entries, each beginning 12 bytes behind the one before."""
    content = bytearray(2 + 12 * entries + 4 + 12 * pages + 64)
    for number in range(pages):
        struct.pack_into("<H", content, 12 * number, entries)
        following = 8 + 12 * (number + 1) if number + 1 < pages else 0
        struct.pack_into("<I", content, 12 * number + 2 + 12 * entries, following)
    return b"II*\0" + struct.pack("<I", 8) + bytes(content)


def png_of_overlapping_exif(size: int = 10_000_000, tags: int = 60) -> bytes:
    """Exif data with many tags over the same bytes."""
    start = 8 + 2 + 12 * (tags + 1) + 4
    shared = [(40000 + number, _BYTES, size, start) for number in range(tags)]
    exif = b"II*\0" + struct.pack("<I", 8) + directory([(274, _SHORT, 1, 1), *shared]) + bytes(size)
    whole = encoded(Image.linear_gradient("L"), "PNG")
    return whole[:33] + chunk(b"eXIf", exif) + whole[33:]


def jpeg_of_many_scans(side: int = 4096, scans: int = 2500) -> bytes:
    """A progressive JPEG whose scans change nothing, and each of which walks through all blocks."""
    whole = encoded(Image.new("L", (side, side), 100), "JPEG", progressive=True, quality=50)
    head = whole[: whole.index(b"\xff\xc4", whole.index(b"\xff\xda"))]
    table = b"\xff\xc4" + struct.pack(">H", 20) + b"\x10" + bytes([1] + [0] * 15) + b"\xe0"
    bits, blocks = "", (side // 8) ** 2
    while blocks > 0:
        run = max(min(blocks, 2**15 - 1), 2**14)
        bits += "0" + format(run - 2**14, "014b")
        blocks -= run
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    scan = b"\xff\xda" + struct.pack(">HBBB", 8, 1, 1, 0) + bytes([1, 63, 0]) + data
    return head + table + scan * scans + b"\xff\xd9"


def jpeg_of_fill_bytes(size: int = 1_000_000) -> bytes:
    """A lossless JPEG with a run of 0xFF in its entropy-coded data."""
    samples = np.random.default_rng(1).integers(0, 4096, (64, 64), dtype=np.uint16)
    whole = bytes(imagecodecs.jpeg8_encode(samples, bitspersample=12, lossless=True))
    at = whole.index(b"\xff\0", whole.index(b"\xff\xda"))
    return whole[:at] + b"\xff" * size + whole[at:]


def jpeg_of_two_sizes(side: int = 16000) -> bytes:
    """A marker without a length, whose next two bytes lead to another start of frame, of 64 x 64 pixels."""
    whole = bytearray(imagecodecs.jpeg8_encode(np.zeros((64, 64), np.uint16), bitspersample=12, lossless=True))
    struct.pack_into(">HH", whole, whole.index(b"\xff\xc3") + 5, side, side)
    scan = whole.index(b"\xff\xda")
    head, rest = bytes(whole[2:scan]), bytes(whole[scan:])
    false = b"\xff\xc3" + struct.pack(">HBHHB", 11, 12, 64, 64, 1) + b"\x01\x11\0"
    comment = b"\xff\xfe" + struct.pack(">H", 60002) + bytes(60000)
    gap = 4 + int.from_bytes(head[:2], "big") - (4 + len(head) + len(comment) + 4)
    second = b"\xff\xfe" + struct.pack(">H", 2 + gap + len(false) + 8) + bytes(gap) + false + bytes(8)
    return b"\xff\xd8\xff\x01" + head + comment + second + rest


def jp2_of_two_sizes(side: int = 8000) -> bytes:
    """A box before the code stream that holds a size marker of 64 x 64 pixels."""
    whole = bytes(imagecodecs.jpeg2k_encode(np.zeros((side, side), np.uint8), level=0, codecformat="jp2"))
    sizes = struct.pack(">HHIIIIIIIIH", 41, 0, 64, 64, 0, 0, 64, 64, 0, 0, 1)
    false = b"\xff\x4f\xff\x51" + sizes + b"\x07\x01\x01" + bytes(16)
    at = whole.index(b"jp2c") - 4
    return whole[:at] + struct.pack(">I", 8 + len(false)) + b"free" + false + whole[at:]


def gif_of_many_frames(frames: int = 900_000) -> bytes:
    """Frames of one pixel, which are counted one by one."""
    whole = encoded(Image.new("P", (64, 64)), "GIF")
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return whole[:-1] + frame * frames + b"\x3b"


_EMPTY_ITEM: Final = b"\xfe\xff\0\xe0\0\0\0\0"
_GREY: Final = np.zeros((64, 64), np.uint8)
_SAMPLES: Final = np.zeros((64, 64), np.uint16)


def with_element(tag: int, kind: bytes, value: bytes, *, deflated: bool = False) -> bytes:
    """A CT slice without a rescale slope, and with one long element that pydicom would not write."""
    data = ct(_SAMPLES, DEFLATED if deflated else EXPLICIT, RescaleSlope=None)
    at = 144 + int.from_bytes(data[140:144], "little")  # behind the file meta information
    element = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind + b"\0\0" + struct.pack("<I", len(value)) + value
    if not deflated:
        return data[:at] + element + data[at:]
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = zlib.decompress(data[at:], -zlib.MAX_WBITS)
    return data[:at] + stream.compress(element) + stream.compress(body) + stream.flush()


def rle_of_long_segments(runs: int = 1_000_000, side: int = 4096) -> bytes:
    """Segments that unpack to more than the picture."""
    segment = b"\x81\0" * runs
    head = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13)
    stream = head + segment + b"\x81\0" * (side * side // 128)
    return encapsulated(stream, RLELossless, np.zeros((side, side), np.uint16))


def palette_of_long_segments(segments: int = 100) -> bytes:
    """A segmented palette, 65,535 entries a segment of 6 bytes."""
    elements: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        long = struct.pack("<HHH", 0, 1, 0) + struct.pack("<HHH", 1, 65535, 7) * segments
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = long
    return ct(_GREY, PhotometricInterpretation="PALETTE COLOR", **elements)


LIMIT: Final = "limit_exceeded"
BOMBS: Final[dict[str, tuple[str | None, Callable[[], bytes]]]] = {
    "TIFF of one large tile": ("too_many_pixels", tiff_of_one_large_tile),
    "TIFF of two widths": ("too_many_pixels", tiff_of_two_widths),
    "TIFF pages that share bytes": ("several_frames", tiff_of_shared_bytes),
    "TIFF directories that overlap": ("damaged_image", tiff_of_overlapping_directories),
    "PNG with Exif tags that share bytes": (None, png_of_overlapping_exif),
    "JPEG of many scans": (None, lambda: jpeg_of_many_scans(scans=600)),
    "JPEG of fill bytes": ("unsupported_encoding", jpeg_of_fill_bytes),
    "JPEG of fill bytes in DICOM": (
        None,
        lambda: encapsulated(jpeg_of_fill_bytes(70_000), JPEGLosslessSV1, _SAMPLES),
    ),
    "JPEG of two sizes": ("unsupported_encoding", jpeg_of_two_sizes),
    "JPEG of two sizes in DICOM": (LIMIT, lambda: encapsulated(jpeg_of_two_sizes(), JPEGLosslessSV1, _SAMPLES)),
    "JPEG 2000 of two sizes": (LIMIT, lambda: encapsulated(jp2_of_two_sizes(), JPEG2000Lossless, _GREY)),
    "GIF of many frames": ("several_frames", gif_of_many_frames),
    "RLE of long segments": (LIMIT, rle_of_long_segments),
    "palette of long segments": (None, palette_of_long_segments),
    "deflated texts": (LIMIT, lambda: with_element(0x00080008, b"UC", b"AB\\" * 5_000_000 + b"A", deflated=True)),
    "deflated items": (LIMIT, lambda: with_element(0x52009230, b"SQ", _EMPTY_ITEM * 10_000_000, deflated=True)),
    "deflated values": (LIMIT, lambda: with_element(0x00281053, b"UT", b"1\\" * 60_000_000 + b"1 ", deflated=True)),
    "items": (LIMIT, lambda: with_element(0x52009230, b"SQ", _EMPTY_ITEM * 2_000_000)),
    "values": (LIMIT, lambda: with_element(0x00281053, b"UT", b"1\\" * 9_000_000 + b"1 ")),
}
"""Code of the refusal, None for a slice, and maker of each; every one took seconds or hundreds of MiB."""
