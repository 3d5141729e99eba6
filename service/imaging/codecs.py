"""Decodes compressed frames of DICOM files with the codecs of imagecodecs.

They are libjpeg-turbo (every JPEG), OpenJPEG (JPEG 2000 and HTJ2K) and CharLS (JPEG-LS). imagecodecs also has OpenJPH,
which hangs on damaged HTJ2K streams, and two other codecs for lossless JPEG, which read fewer kinds.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ErrorCode, damaged_image, unsupported
from service.imaging.jpeg_headers import (
    StreamHeader,
    is_ycc,
    jpeg_2000_header,
    jpeg_header,
    unread_process,
    with_more_bits,
    with_stuffed_ones,
)

JPEG_SYNTAXES: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
"""Baseline, extended (12 bits), lossless with any predictor, lossless with predictor 1."""

JPEG_LS_SYNTAXES: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
JPEG_2000_SYNTAXES: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))

_COLOURS: Final = ("RGB", "YBR_FULL", "YBR_FULL_422")

_END_OF_CODESTREAM: Final = b"\xff\xd9"


def decode_stream(frame: bytes, syntax: str, rows: int, columns: int, samples: int, photometric: str) -> NDArray[Any]:
    """Decode one compressed frame.

    Args:
        frame: the stream, possibly padded.
        syntax: UID of one of the syntaxes above.
        rows, columns, samples: size in the DICOM header; a stream of another size is refused before it is decoded.
        photometric: of the DICOM header; colours are returned as RGB.

    Returns:
        (rows, columns) or (rows, columns, 3), 8 or 16 bits, signed if a JPEG 2000 stream is.

    Raises:
        UnusableImageError: damaged, truncated, or of a kind that no codec reads.
    """
    read_header, decode = _codec(syntax)
    header = read_header(frame)
    if header is None:
        raise damaged_image("its compressed pixels have no readable header")
    if (header.columns, header.rows, header.components) != (columns, rows, samples):
        raise damaged_image(
            f"its compressed pixels are of another size, {header.columns} x {header.rows} with {header.components} "
            f"samples each, than its header says, {columns} x {rows} with {samples}"
        )
    if not 2 <= header.precision <= 16:
        raise unsupported(
            f"The compressed pixels have {header.precision} bits a sample; 2 to 16 bits are read.",
            "gdcmconv --raw in.dcm out.dcm",
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    pixels = decode(frame, photometric)
    if pixels.shape[:2] != (rows, columns) or pixels.size != rows * columns * samples or pixels.dtype.itemsize > 2:
        raise damaged_image("its pixels are of another size than its header says")
    return pixels


Decode = Callable[[bytes, str], NDArray[Any]]


def _codec(syntax: str) -> tuple[Callable[[bytes], StreamHeader | None], Decode]:
    if syntax in JPEG_SYNTAXES:
        return jpeg_header, _jpeg
    if syntax in JPEG_LS_SYNTAXES:
        return jpeg_header, _jpeg_ls
    return jpeg_2000_header, _jpeg_2000


def _jpeg(frame: bytes, photometric: str) -> NDArray[Any]:
    import imagecodecs

    process = unread_process(frame)
    if process is not None:
        raise unsupported(
            f"The JPEG stream is {process}, which is not read.",
            "gdcmconv --raw in.dcm out.dcm",
            ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    lossless = b"\xff\xc3\x00" in frame[: frame.find(b"\xff\xda")]
    colours: dict[str, Any] = {}
    if photometric in _COLOURS and not lossless:
        ycc = photometric.startswith("YBR") or is_ycc(frame)
        colours = {"colorspace": "YCBCR" if ycc else "RGB", "outcolorspace": "RGB"}
    frame = with_stuffed_ones(frame)
    pixels = imagecodecs.jpeg8_decode(frame, **colours)
    if not np.array_equal(pixels, imagecodecs.jpeg8_decode(with_more_bits(frame), **colours)):
        raise damaged_image("its JPEG stream is truncated")
    return np.asarray(pixels)


def _jpeg_ls(frame: bytes, _: str) -> NDArray[Any]:
    """Decode JPEG-LS, without the zeros that some encoders write before the end marker.

    The last byte of a stream may be zero too, so one zero is tried before the end marker if none fails.
    """
    import imagecodecs

    if not frame.rstrip(b"\0").endswith(_END_OF_CODESTREAM):
        frame += _END_OF_CODESTREAM  # CharLS needs seconds to refuse a stream without an end
    try:
        return np.asarray(imagecodecs.jpegls_decode(frame))
    except imagecodecs.JpeglsError:
        end = frame.rfind(_END_OF_CODESTREAM)
        body = frame[:end].rstrip(b"\0") if end > 0 else b""
        if not body or len(body) == end:
            raise
    try:
        return np.asarray(imagecodecs.jpegls_decode(body + _END_OF_CODESTREAM))
    except imagecodecs.JpeglsError:
        return np.asarray(imagecodecs.jpegls_decode(body + b"\0" + _END_OF_CODESTREAM))


def _jpeg_2000(frame: bytes, _: str) -> NDArray[Any]:
    """Decode JPEG 2000, and add a missing end marker; OpenJPEG still refuses truncated tiles."""
    import imagecodecs

    if frame.rstrip(b"\0").endswith(_END_OF_CODESTREAM):
        return np.asarray(imagecodecs.jpeg2k_decode(frame, numthreads=1))
    try:
        return np.asarray(imagecodecs.jpeg2k_decode(frame + _END_OF_CODESTREAM, numthreads=1))
    except imagecodecs.Jpeg2kError:  # the last byte may be padding
        return np.asarray(imagecodecs.jpeg2k_decode(frame[:-1] + _END_OF_CODESTREAM, numthreads=1))
