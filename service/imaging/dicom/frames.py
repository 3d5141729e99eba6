"""Splits the pixel data of a DICOM file into frames, and decodes them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import damaged_image
from service.imaging.dicom.codecs import END, JPEG_XL, LOSSY_JPEG, RLE, decode_stream
from service.imaging.dicom.elements import malformed
from service.imaging.dicom.header import Header
from service.imaging.dicom.reader import BIG_ENDIAN, NATIVE, Reader
from service.imaging.failures import decoding

_YBR: Final = ("YBR_FULL", "YBR_FULL_422")
"""Photometric interpretations of pixels that are still YCbCr when they are decoded."""

_RLE_OFFSET: Final = (64).to_bytes(4, "little")
"""Offset of the first segment, which is behind the header (PS3.5 G.5)."""

_JPEG_XL_STARTS: Final = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
"""First bytes of a JPEG XL stream, bare or in a container; no marker ends it."""


def split_frames(reader: Reader, header: Header) -> Sequence[bytes | memoryview]:
    """Split the pixel data into frames.

    Raises:
        UnusableImageError: truncated, or there are more pixels than the header announces.
    """
    return _native_frames(reader, header) if header.syntax in NATIVE else _compressed_frames(reader, header)


def decode_frame(frame: bytes | memoryview, header: Header) -> NDArray[Any]:
    """Decode a frame with all bits of its samples, also those above BitsStored; colours become RGB.

    Returns:
        8 or 16 bits, signed if a compressed stream says so; (rows, columns), or (rows, columns, 3) of colours.

    Raises:
        UnusableImageError: of another size than the header says, or of a kind that the codec does not read.
        RuntimeError, ValueError: truncated or damaged.
    """
    from pydicom.pixels.processing import convert_color_space

    pixels = _native_pixels(frame, header) if header.syntax in NATIVE else decode_stream(bytes(frame), header)
    if header.samples == 1:
        return pixels.reshape(header.rows, header.columns)
    if header.photometric in _YBR and header.syntax not in LOSSY_JPEG:  # whose codec converts them
        return convert_color_space(pixels, "YBR_FULL", "RGB")
    return pixels


def _native_frames(reader: Reader, header: Header) -> list[memoryview]:
    pixels = reader.pixels
    if header.syntax == BIG_ENDIAN and header.bits == 8 and reader.vr == "OW":
        pixels = np.frombuffer(pixels, "u2").byteswap().view("u1").data
    pixel_bytes = 2 if header.photometric == "YBR_FULL_422" else header.samples * (header.bits // 8)
    frame_bytes = header.rows * header.columns * pixel_bytes
    needed = frame_bytes * header.frames
    _check_number(len(pixels) // frame_bytes, header)
    if not 0 <= len(pixels) - needed < min(header.rows, header.columns) * pixel_bytes:  # the rest is padding
        reason = "it is truncated" if len(pixels) < needed else "Rows or Columns is wrong"
        raise damaged_image(
            f"it has {len(pixels)} bytes of pixels, and {header.frames} frames of {header.columns} x {header.rows} "
            f"need {needed}: {reason}"
        )
    return [pixels[start : start + frame_bytes] for start in range(0, needed, frame_bytes)]


def _native_pixels(frame: bytes | memoryview, header: Header) -> NDArray[Any]:
    order = ">" if header.syntax == BIG_ENDIAN else "<"
    pixels = np.frombuffer(frame, f"{order}u{header.bits // 8}")
    if header.photometric == "YBR_FULL_422":  # two pixels share their colour (PS3.3 C.7.6.3.1.2)
        pixels = pixels.reshape(-1, 4)[:, [0, 2, 3, 1, 2, 3]]
    if header.planar:
        return np.moveaxis(pixels.reshape(-1, header.rows, header.columns), 0, -1)
    return pixels.reshape(header.rows, header.columns, -1)


def _compressed_frames(reader: Reader, header: Header) -> list[bytes]:
    """Split compressed pixels; the table of offsets, often wrong, is used only if frames have several fragments."""
    from pydicom.encaps import generate_fragments, generate_frames

    with decoding("its compressed pixels are truncated, or have no fragments"):
        pixels = reader.pixels.tobytes()
        _, *fragments = generate_fragments(pixels)
        if header.syntax == RLE:
            frames = [fragment[4:8] == _RLE_OFFSET for fragment in fragments]
        elif header.syntax in JPEG_XL:
            frames = [fragment.startswith(_JPEG_XL_STARTS) for fragment in fragments]
        else:
            frames = [END in fragment[-10:] for fragment in fragments]
        _check_number(sum(frames), header)
        if header.frames == 1:
            return [b"".join(fragments)]
        if header.frames == len(fragments):
            return fragments
        return list(generate_frames(pixels, number_of_frames=header.frames))


def _check_number(frames: int, header: Header) -> None:
    if frames > header.frames:
        raise malformed("NumberOfFrames", f"announces {header.frames}, and there are pixels of {frames} frames")
