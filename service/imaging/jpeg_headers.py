"""Image size in the headers of JPEG and JPEG 2000 streams."""

import struct


def jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Read columns and rows in the first start-of-frame marker (ITU-T T.81 B.2.2; T.87 for JPEG-LS)."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 9 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", frame, at + 5)
            return columns, rows
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return None


def jpeg_2000_size(frame: bytes) -> tuple[int, int] | None:
    """Read columns and rows in the SIZ marker (ITU-T T.800 A.5.1); the codestream may be in a JP2 box."""
    at = frame.find(b"\xff\x4f\xff\x51")
    if at < 0 or at + 24 > len(frame):
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, at + 8)
    return right - left, bottom - top
