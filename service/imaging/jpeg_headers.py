"""Fields of the headers of JPEG, JPEG-LS and JPEG 2000 streams, and the end of a JPEG's entropy-coded data."""

import re
import struct
from dataclasses import dataclass
from typing import Final

_ENTROPY_END: Final = re.compile(rb"\xff[\x01-\xfe]")
_BARE_ONES: Final = re.compile(rb"\xff(?=\xff[\xd0-\xd9])")
_UNREAD_FRAME: Final = re.compile(rb"\xff[\xc5-\xc7\xc9-\xcb\xcd-\xcf]\x00")
_START_OF_SCAN: Final = 0xDA
_RESTART_INTERVAL: Final = 0xDD
_PADDING: Final = bytes(number * 73 % 251 + 1 for number in range(64, 0, -1))
"""Marker-free filler: a truncated stream decodes differently with it than with zeros."""


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """Description of the pixels in a compressed stream.

    Attributes:
        columns, rows: size in pixels.
        components: samples of a pixel.
        precision: bits of a sample.
        signed: whether samples are two's complement; JPEG and JPEG-LS have no such samples.
    """

    columns: int
    rows: int
    components: int
    precision: int
    signed: bool = False


def jpeg_header(frame: bytes) -> StreamHeader | None:
    """Read the first start-of-frame marker (ITU-T T.81 B.2.2; T.87 for JPEG-LS), or return None without one."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 10 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return StreamHeader(columns, rows, components, precision)
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return None


def unread_process(frame: bytes) -> str | None:
    """Return the kind of a JPEG that no codec here reads (ITU-T T.81, table B.1), or None."""
    found = _UNREAD_FRAME.search(frame[: max(frame.find(b"\xff\xda"), 0)])
    if found is None:
        return None
    return "arithmetically coded" if found.group()[1] >= 0xC9 else "hierarchical"


def jpeg_2000_header(frame: bytes) -> StreamHeader | None:
    """Read the SIZ marker (ITU-T T.800 A.5.1), or return None without one; the codestream may be in a JP2 box."""
    at = _codestream(frame)
    if frame[at : at + 4] != b"\xff\x4f\xff\x51" or at + 43 > len(frame):
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, at + 8)
    components, depth = struct.unpack_from(">HB", frame, at + 40)
    return StreamHeader(right - left, bottom - top, components, (depth & 127) + 1, bool(depth & 128))


def _codestream(frame: bytes) -> int:
    """Find the codestream: the start, or the content of the box `jp2c` (ITU-T T.800, annex I)."""
    at = 0
    while frame[:4] != b"\xff\x4f\xff\x51" and at + 8 <= len(frame):
        size, kind = struct.unpack_from(">I4s", frame, at)
        if kind == b"jp2c":
            return at + (16 if size == 1 else 8)
        if size < 8:
            break
        at += size
    return at


def is_ycc(frame: bytes) -> bool:
    """Whether a JPEG's application markers say that its colours are YCbCr (JFIF, or Adobe with a transform)."""
    head = frame[: max(frame.find(b"\xff\xda"), 0)]
    adobe = head.find(b"\xff\xee\x00\x0eAdobe")
    if adobe >= 0:
        return head[adobe + 15 : adobe + 16] == b"\x01"
    return b"\xff\xe0" in head[:4] and head[6:10] == b"JFIF"


def with_stuffed_ones(frame: bytes) -> bytes:
    """Insert the zero after a data byte 0xFF that is directly before a marker, which some encoders leave out."""
    start = frame.find(b"\xff\xda")
    return frame if start < 0 else frame[:start] + _BARE_ONES.sub(b"\xff\0", frame[start:])


def with_more_bits(frame: bytes) -> bytes:
    """Append bits to every entropy-coded segment of a JPEG, and a segment after the last restart interval.

    A decoder replaces missing bits by zeros without an error. If a stream and its copy with the filler decode to the
    same pixels, the stream is complete. Encoders pad with less than a byte, so their padding does not matter.
    """
    parts, at, restarts, following = [frame[:2]], 2, False, 0
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        begin = at
        if marker == 0xFF:
            at += 1
        elif 0xD0 <= marker <= 0xD9 or marker == 0x01:
            at += 2
        else:
            at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
        parts.append(frame[begin:at])
        restarts |= marker == _RESTART_INTERVAL
        if marker != _START_OF_SCAN and not 0xD0 <= marker <= 0xD7:
            continue
        following = 0 if marker == _START_OF_SCAN else (marker + 1) % 8
        found = _ENTROPY_END.search(frame, at)
        end = found.start() if found else len(frame)
        while end > at and frame[end - 1] == 0xFF:  # fill bytes before the marker
            end -= 1
        follower = found.group()[-1] if found else 0
        parts.extend((frame[at:end], _PADDING))
        at = end
        if restarts and not 0xD0 <= follower <= 0xD7:
            parts.append(bytes((0xFF, 0xD0 + following)) + _PADDING)
    return b"".join((*parts, frame[at:]))
