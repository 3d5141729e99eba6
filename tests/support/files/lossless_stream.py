"""An encoder of lossless JPEG in plain Python, for the kinds that no encoder at hand writes."""

import struct

import numpy as np
from numpy.typing import NDArray

_COUNTS = [1, 0, 0, 0, 12, 4, *[0] * 10]
"""Huffman codes of each length: category 0 has 1 bit, the others 5 or 6."""


def lossless_stream(samples: NDArray[np.uint16], precision: int = 16, restart_rows: int = 0) -> bytes:
    """Encode grey samples (H, W) with predictor 1.

    Args:
        samples: with `precision` bits.
        precision: bits of a sample.
        restart_rows: rows between restart markers; 0 writes none.
    """
    rows, columns = samples.shape
    each = restart_rows or rows
    parts = [_entropy(samples[at : at + each].astype(np.int64), precision) for at in range(0, rows, each)]
    body = parts[0] + b"".join(bytes([0xFF, 0xD0 + index % 8]) + part for index, part in enumerate(parts[1:]))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xC3, struct.pack(">BHHB", precision, rows, columns, 1) + b"\1\x11\0"),
            _segment(0xC4, b"\0" + bytes(_COUNTS) + bytes(range(17))),
            _segment(0xDD, struct.pack(">H", each * columns)) if restart_rows else b"",
            _segment(0xDA, b"\1\1\0\1\0\0"),
            body,
            b"\xff\xd9",
        )
    )


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _codes() -> list[str]:
    codes, code = [], 0
    for length, count in enumerate(_COUNTS, start=1):
        for _ in range(count):
            codes.append(format(code, f"0{length}b"))
            code += 1
        code <<= 1
    return codes


def _entropy(samples: NDArray[np.int64], precision: int) -> bytes:
    differences = np.empty_like(samples)
    differences[:, 1:] = samples[:, 1:] - samples[:, :-1]
    differences[1:, 0] = samples[1:, 0] - samples[:-1, 0]
    differences[0, 0] = samples[0, 0] - (1 << precision - 1)
    codes, bits = _codes(), []
    for value in ((differences + 32768) % 65536 - 32768).ravel().tolist():
        category = abs(value).bit_length()
        bits.append(codes[category])
        if category not in (0, 16):
            bits.append(format(value if value > 0 else value + (1 << category) - 1, f"0{category}b"))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
