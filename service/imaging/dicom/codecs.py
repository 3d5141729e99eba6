"""Decodes compressed frames of DICOM files with imagecodecs.

The codecs are libjpeg-turbo (every JPEG), CharLS (JPEG-LS), OpenJPEG (JPEG 2000 and HTJ2K), libjxl (JPEG XL), and
imagecodecs' own for RLE. OpenJPH hangs on damaged HTJ2K streams; the other codecs for lossless JPEG read fewer kinds.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported
from service.imaging.dicom.header import Header

DECOMPRESS: Final = "gdcmconv --raw in.dcm out.dcm"

RLE: Final = "1.2.840.10008.1.2.5"
_JPEG: Final = "1.2.840.10008.1.2.4."
LOSSY_JPEG: Final = (_JPEG + "50", _JPEG + "51")
JPEG_XL: Final = (_JPEG + "110", _JPEG + "111", _JPEG + "112")

_SCAN: Final = b"\xff\xda"
END: Final = b"\xff\xd9"
"""Markers of a JPEG; JPEG-LS and JPEG 2000 end with the same one, and padding may follow it."""

_MARKER: Final = re.compile(rb"\xff(?<!\xff\xff)\xff*+(?=[\x01-\xfe])")
"""Start of a marker in the entropy-coded data of a JPEG, in which a data byte 0xFF is followed by zero."""

_BARE_ONES: Final = re.compile(rb"\xff(?=\xff[\xd0-\xd9])")
"""A last byte 0xFF of the data that is not followed by zero, as some encoders write it."""

_FILLER: Final = bytes(number * 73 % 251 + 1 for number in range(64, 0, -1))
"""Without a marker: a truncated stream decodes differently with it than with zeros."""

_RESTARTS: Final = b"".join(_FILLER + bytes((0xFF, marker)) for marker in range(0xD0, 0xD8)) + _FILLER
"""Filler in restart intervals of each number."""


def decode_stream(stream: bytes, header: Header) -> NDArray[Any]:
    """Decode a compressed frame like `decode_frame`, but only colours of a lossy JPEG become RGB."""
    try:
        pixels = CODECS[header.syntax](stream, header)
    except RuntimeError as error:
        raise _unread(str(error)) or error from None
    if pixels.reshape(*pixels.shape[:2], -1).shape != (header.rows, header.columns, header.samples):
        raise _another_size()
    if 8 * pixels.itemsize > header.bits:
        raise _too_deep()
    return pixels


def _decode_jpeg(stream: bytes, header: Header) -> NDArray[Any]:
    """Decode a JPEG of 2 to 16 bits, lossy or lossless.

    libjpeg replaces missing bits by zeros with a warning, which imagecodecs does not pass on. The stream is decoded
    again with filler behind its data: other pixels mean that bits are missing.
    """
    start = stream.find(_SCAN) + len(_SCAN)
    colours: dict[str, Any] = {}
    if header.samples == 3 and header.syntax in LOSSY_JPEG:
        is_rgb = header.photometric == "RGB" and b"JFIF" not in stream[:start]  # libjpeg takes it for YCbCr
        colours = {"colorspace": "RGB" if is_rgb else None, "outcolorspace": "RGB"}
    stream = stream[:start] + _BARE_ONES.sub(b"\xff\0", stream[start:])
    pixels = imagecodecs.jpeg8_decode(stream, **colours)
    if not np.array_equal(pixels, imagecodecs.jpeg8_decode(_with_filler(stream), **colours)):
        raise ValueError("truncated")
    return pixels


def _with_filler(stream: bytes) -> bytes:
    """Insert filler before every marker behind the first scan's header; encoders pad with less than a byte."""
    start = stream.find(_SCAN) + len(_SCAN)
    start += int.from_bytes(stream[start : start + 2], "big")
    data = stream[start:].rstrip(b"\0").removesuffix(END)
    return stream[:start] + _MARKER.sub(lambda marker: _FILLER + marker[0], data) + _RESTARTS + END


def _decode_jpeg_ls(stream: bytes, _: Header) -> NDArray[Any]:
    """Decode JPEG-LS, also with zeros before the end marker, of which the first may belong to the data."""
    data = stream.rstrip(b"\0").removesuffix(END)  # without an end marker CharLS needs seconds for a refusal
    bare = data.rstrip(b"\0")
    return _first(imagecodecs.jpegls_decode, data + END, bare + END, bare + b"\0" + END)


def _decode_jpeg_2000(stream: bytes, _: Header) -> NDArray[Any]:
    """Decode JPEG 2000, and add a missing end marker; the last byte may be padding."""
    streams = [stream] if stream.rstrip(b"\0").endswith(END) else [stream + END, stream[:-1] + END]
    return _first(lambda data: imagecodecs.jpeg2k_decode(data, numthreads=1), *streams)


def _first(decode: Callable[[bytes], NDArray[Any]], *streams: bytes) -> NDArray[Any]:
    """Decode the first stream that can be decoded; raise the error of the last one."""
    for stream in streams[:-1]:
        with suppress(RuntimeError):
            return decode(stream)
    return decode(streams[-1])


def _decode_jpeg_xl(stream: bytes, _: Header) -> NDArray[Any]:
    return imagecodecs.jpegxl_decode(stream, numthreads=1)


def _decode_rle(stream: bytes, header: Header) -> NDArray[Any]:
    """Decode RLE, and drop padding of less than a row or a column."""
    _check_segments(stream)
    kind = np.dtype(f"<u{header.bits // 8}")
    planes = np.frombuffer(imagecodecs.dicomrle_decode(stream, kind), kind).reshape(header.samples, -1)
    size = header.rows * header.columns
    if planes.shape[1] < size:
        raise ValueError("truncated")
    if planes.shape[1] - size >= min(header.rows, header.columns):
        raise _another_size()
    return np.moveaxis(planes[:, :size].reshape(-1, header.rows, header.columns), 0, -1)


def _check_segments(stream: bytes) -> None:
    """Check that the segments of RLE are inside the frame (PS3.5 G.5): the codec reads memory behind it otherwise."""
    count, *offsets = np.frombuffer(stream, "<u4", 16).tolist()
    bounds = [64, *offsets[:count], len(stream)]
    if bounds != sorted(bounds):
        raise ValueError("segments outside the frame")


CODECS: Final[dict[str, Callable[[bytes, Header], NDArray[Any]]]] = {
    RLE: _decode_rle,
    # baseline, extended (12 bits), lossless with any predictor and with the first
    **{_JPEG + number: _decode_jpeg for number in ("50", "51", "57", "70")},
    **{_JPEG + number: _decode_jpeg_ls for number in ("80", "81")},
    **{_JPEG + number: _decode_jpeg_2000 for number in ("90", "91", "201", "202", "203")},  # the last three are HTJ2K
    **dict.fromkeys(JPEG_XL, _decode_jpeg_xl),
}
"""Decoders of compressed pixels, by transfer syntax."""


def _another_size() -> UnusableImageError:
    return damaged_image("its compressed pixels are of another size than its header says")


def _too_deep() -> UnusableImageError:
    return unsupported(
        "The compressed pixels have more bits than BitsAllocated (0028,0100) says, or more than 16.",
        DECOMPRESS,
        ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
    )


def _unread(message: str) -> UnusableImageError | None:
    """Build the refusal of a stream of an unsupported kind, by the codec's message; None if it is damaged."""
    if "precision" in message:
        return _too_deep()
    if re.search(r"process|omitted", message):
        return unsupported(
            "The JPEG stream is hierarchical or arithmetically coded, which is not read.",
            DECOMPRESS,
            ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    return None
