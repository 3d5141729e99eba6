"""Lossless JPEG (ITU-T T.81, process 14 with predictor 1), used by many scanners and archives for CT.

Own code, because no library fits: pylibjpeg-libjpeg is GPL, Pillow's libjpeg does not read it, and GDCM crashed the
process on damaged files. It takes about half a microsecond for a sample, more than C.
"""

import re
import struct
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLES: Final = 2048 * 2048
"""Some two seconds of work."""

_START_OF_FRAME: Final = 0xC3
_HUFFMAN: Final = 0xC4
_START_OF_SCAN: Final = 0xDA
_RESTART_INTERVAL: Final = 0xDD


class LosslessJpegError(Exception):
    """The stream is damaged or not supported; the message says which and quotes nothing of it."""


@dataclass(slots=True)
class _Stream:
    """Contents of the markers before the pixels."""

    precision: int = 0
    rows: int = 0
    columns: int = 0
    interval: int = 0
    shift: int = 0
    tables: dict[int, list[int]] = field(default_factory=dict)
    table: list[int] = field(default_factory=list)
    body: bytes = b""


def decode_lossless_jpeg(data: bytes) -> NDArray[np.uint16]:
    """Decode a grey lossless JPEG.

    Args:
        data: from its start-of-image marker on.

    Returns:
        uint16 (rows, columns), the samples' bits.

    Raises:
        LosslessJpegError: damaged, truncated, several components, another predictor, or more than `MAX_SAMPLES`.
    """
    try:
        stream = _parse(data)
    except (struct.error, IndexError) as error:
        raise LosslessJpegError("its markers are damaged") from error
    interval = stream.interval or stream.rows * stream.columns
    if interval % stream.columns:
        raise LosslessJpegError("its restart intervals are not whole rows")
    parts = re.split(rb"\xff[\xd0-\xd7]", stream.body)
    samples, rows_left = [], stream.rows
    for part in parts:
        rows = min(interval // stream.columns, rows_left)
        differences = _differences(part.replace(b"\xff\x00", b"\xff"), stream.table, rows * stream.columns)
        samples.append(_predicted(differences.reshape(rows, stream.columns), stream))
        rows_left -= rows
    if rows_left:
        raise LosslessJpegError("it is truncated")
    return np.concatenate(samples)


def _parse(data: bytes) -> _Stream:
    stream, at = _Stream(), 2
    while True:
        if data[at] != 0xFF:
            raise LosslessJpegError("its markers are damaged")
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        segment = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == _START_OF_FRAME:
            _read_frame(stream, segment)
        elif marker == _HUFFMAN:
            _read_tables(stream, segment)
        elif marker == _RESTART_INTERVAL:
            (stream.interval,) = struct.unpack(">H", segment)
        elif marker == _START_OF_SCAN:
            _read_scan(stream, segment)
            end = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]").search(data, at)
            stream.body = data[at : end.start() if end else len(data)]
            return stream


def _read_frame(stream: _Stream, segment: bytes) -> None:
    stream.precision, stream.rows, stream.columns, components = struct.unpack_from(">BHHB", segment)
    if components != 1:
        raise LosslessJpegError("it has several components")
    if not 2 <= stream.precision <= 16 or not 0 < stream.rows * stream.columns <= MAX_SAMPLES:
        raise LosslessJpegError(f"it has {stream.columns} x {stream.rows} samples of {stream.precision} bits")


def _read_scan(stream: _Stream, segment: bytes) -> None:
    components, _, selector, predictor, _, low = struct.unpack(">6B", segment)
    if components != 1 or predictor != 1:
        raise LosslessJpegError("it uses a predictor that is not read (only 1 is)")
    if selector >> 4 not in stream.tables or not stream.rows:
        raise LosslessJpegError("its markers are damaged")
    stream.table, stream.shift = stream.tables[selector >> 4], low & 15
    if stream.shift >= stream.precision:
        raise LosslessJpegError("its markers are damaged")


def _read_tables(stream: _Stream, segment: bytes) -> None:
    """Read each Huffman table as 65536 entries, one for each next 16 bits: code length * 256 + category; 0: no code."""
    at = 0
    while at < len(segment):
        counts = segment[at + 1 : at + 17]
        table: list[int] = []
        values = iter(segment[at + 17 : at + 17 + sum(counts)])
        for length, count in enumerate(counts, start=1):
            for value in (next(values, 255) for _ in range(count)):
                if value > 16 or len(table) >= 1 << 16:
                    raise LosslessJpegError("its Huffman table is damaged")
                table.extend([length << 8 | value] * (1 << 16 - length))
        stream.tables[segment[at] & 15] = (table + [0] * (1 << 16))[: 1 << 16]
        at += 17 + sum(counts)


def _differences(data: bytes, table: list[int], count: int) -> NDArray[np.int64]:
    """Huffman-decode `count` differences (T.81 H.1.2.2)."""
    differences = [0] * count
    held, bits, at = 0, 0, 0
    for index in range(count):
        if bits < 32:
            if at > len(data):
                raise LosslessJpegError("it is truncated")
            held = (held & (1 << bits) - 1) << 48 | int.from_bytes(data[at : at + 6].ljust(6, b"\0"), "big")
            bits, at = bits + 48, at + 6
        entry = table[held >> bits - 16 & 0xFFFF]
        if not entry:
            raise LosslessJpegError("it holds a code that its table has not")
        category = entry & 255
        bits -= entry >> 8
        if category == 16:
            differences[index] = 32768
        elif category:
            bits -= category
            value = held >> bits & (1 << category) - 1
            differences[index] = value if value >> category - 1 else value - (1 << category) + 1
    if at * 8 - bits > len(data) * 8:
        raise LosslessJpegError("it is truncated")
    return np.array(differences, dtype=np.int64)


def _predicted(differences: NDArray[np.int64], stream: _Stream) -> NDArray[np.uint16]:
    """Undo predictor 1: a sample's left neighbour, at a row's begin the one above (T.81 H.1.2.1); modulo 2 ** 16."""
    if differences.size:
        differences[0, 0] += 1 << stream.precision - stream.shift - 1
    differences[:, 0] = differences[:, 0].cumsum()
    return (differences.cumsum(axis=1) << stream.shift).astype(np.uint16)
