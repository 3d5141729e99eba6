"""Decodes compressed frames with imagecodecs; a decoding plugin of pydicom.

The codecs are libjpeg-turbo (every JPEG), CharLS (JPEG-LS), OpenJPEG (JPEG 2000 and HTJ2K), libjxl (JPEG XL), and
imagecodecs' own for RLE. OpenJPH hangs on damaged HTJ2K streams; the other codecs for lossless JPEG read fewer kinds.
pydicom imports this module when the first compressed file is decoded.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders import rle
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported

_END: Final = b"\xff\xd9"
"""The last marker of a JPEG, JPEG-LS or JPEG 2000 stream."""

_SCAN: Final = b"\xff\xda"
_MARKER: Final = re.compile(rb"\xff(?<!\xff\xff)\xff*+(?=[\x01-\xfe])")
"""Start of a marker in the entropy-coded data of a JPEG, in which a data byte 0xFF is followed by zero."""

_RESTARTS: Final = re.compile(rb"\xff([\xd0-\xd7])")
_BARE_ONES: Final = re.compile(rb"\xff(?=\xff[\xd0-\xd9])")
_FILLER: Final = bytes(number * 73 % 251 + 1 for number in range(64, 0, -1))
"""Without a marker: a truncated stream decodes differently with it than with zeros."""


def is_available(_: str) -> bool:
    """Whether the codecs are installed, which pydicom asks each plugin."""
    return True


def decode_jpeg(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode a JPEG of 2 to 16 bits, lossy or lossless; colours become RGB unless it is lossless.

    libjpeg replaces missing bits by zeros with a warning, which imagecodecs does not pass on. The stream is decoded
    again with filler behind its data: other pixels mean that bits are missing.

    Raises:
        ValueError: truncated, or of another size than the DICOM header says.
        RuntimeError: damaged, or of a kind that libjpeg does not read.
    """
    colours: dict[str, Any] = {}
    if runner.samples_per_pixel == 3 and runner.transfer_syntax not in (JPEGLossless, JPEGLosslessSV1):
        colours = {"colorspace": "RGB" if runner.photometric_interpretation == "RGB" else "YCBCR"}
        colours["outcolorspace"] = "RGB"
        runner.set_option("photometric_interpretation", "RGB")
    start = frame.find(_SCAN) + len(_SCAN)
    frame = frame[:start] + _BARE_ONES.sub(b"\xff\0", frame[start:])  # some encoders do not stuff the last byte
    pixels = imagecodecs.jpeg8_decode(frame, **colours)
    if not np.array_equal(pixels, imagecodecs.jpeg8_decode(_with_filler(frame), **colours)):
        raise ValueError("truncated")
    return _checked(pixels, runner)


def decode_jpeg_ls(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode JPEG-LS, also with zeros before the end marker, of which the first may belong to the data.

    Raises:
        ValueError: of another size than the DICOM header says.
        RuntimeError: damaged or truncated.
    """
    data = frame.rstrip(b"\0").removesuffix(_END)  # without an end marker CharLS needs seconds for a refusal
    bare = data.rstrip(b"\0")
    return _checked(_first(imagecodecs.jpegls_decode, data + _END, bare + _END, bare + b"\0" + _END), runner)


def decode_jpeg_2000(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode JPEG 2000, and add a missing end marker; the last byte may be padding.

    Raises:
        ValueError: of another size than the DICOM header says.
        RuntimeError: damaged or truncated.
    """
    streams = [frame] if frame.rstrip(b"\0").endswith(_END) else [frame + _END, frame[:-1] + _END]
    return _checked(_first(lambda stream: imagecodecs.jpeg2k_decode(stream, numthreads=1), *streams), runner)


def decode_jpeg_xl(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode JPEG XL.

    Raises:
        ValueError: of another size than the DICOM header says.
        RuntimeError: damaged or truncated.
    """
    return _checked(imagecodecs.jpegxl_decode(frame, numthreads=1), runner)


def decode_rle(frame: bytes, runner: DecodeRunner) -> bytes | bytearray:
    """Decode RLE. Frames with less than a row or a column of padding are decoded by pydicom, which drops it.

    Raises:
        ValueError: of another size than the DICOM header says.
        RuntimeError: damaged or truncated.
    """
    planes = runner.samples_per_pixel * runner.bits_allocated // 8
    pixels = bytes(imagecodecs.dicomrle_decode(frame, f"<u{runner.bits_allocated // 8}"))
    excess = len(pixels) - runner.rows * runner.columns * planes
    if excess < 0:
        raise ValueError("truncated")
    if excess >= min(runner.rows, runner.columns) * planes:
        raise ValueError(f"of another size than the header says, by {excess} bytes")
    if excess:
        return rle._decode_frame(frame, runner)  # noqa: SLF001
    runner.set_option("planar_configuration", 1)
    return pixels


def unread_stream(message: str) -> UnusableImageError | None:
    """Build the refusal of a stream that a codec does not read, by the codec's message; None if it is damaged."""
    if "another size" in message:
        return damaged_image("its compressed pixels are of another size than its header says")
    if re.search(r"samples need|precision", message):
        return unsupported(
            "The compressed pixels have more bits than BitsAllocated (0028,0100) says, or more than 16.",
            "gdcmconv --raw in.dcm out.dcm",
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    if re.search(r"process|omitted", message):
        return unsupported(
            "The JPEG stream is hierarchical or arithmetically coded, which is not read.",
            "gdcmconv --raw in.dcm out.dcm",
            ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    return None


def _first(decode: Callable[[bytes], NDArray[Any]], *streams: bytes) -> NDArray[Any]:
    """Decode the first stream that can be decoded; raise the error of the last one."""
    for stream in streams[:-1]:
        with suppress(RuntimeError):
            return decode(stream)
    return decode(streams[-1])


def _checked(pixels: NDArray[Any], runner: DecodeRunner) -> bytes:
    """Check the size of decoded pixels, and tell pydicom their kind."""
    shape = (runner.rows, runner.columns, runner.samples_per_pixel)
    if pixels.reshape(*pixels.shape[:2], -1).shape != shape:
        raise ValueError(f"of another size, {pixels.shape}, than the header says, {shape}")
    bits = 8 * pixels.dtype.itemsize
    if bits > runner.bits_allocated:
        raise ValueError(f"samples need {bits} bits")
    runner.set_option("bits_allocated", bits)
    runner.set_option("pixel_representation", int(pixels.dtype.kind == "i"))
    runner.set_option("planar_configuration", 0)
    return pixels.tobytes()


def _with_filler(frame: bytes) -> bytes:
    """Insert filler before every marker behind the first scan's header, and a restart interval before the last one.

    Encoders pad with less than a byte, so their padding does not matter.
    """
    start = frame.find(_SCAN) + len(_SCAN)
    start += int.from_bytes(frame[start : start + 2], "big")
    data = frame[start:].rstrip(b"\0").removesuffix(_END)
    restarts = _RESTARTS.findall(data)
    following = 0xD0 + (restarts[-1][0] + 1) % 8 if restarts else 0xD0
    data = _MARKER.sub(lambda marker: _FILLER + marker[0], data)
    return b"".join((frame[:start], data, _FILLER, bytes((0xFF, following)), _FILLER, _END))
