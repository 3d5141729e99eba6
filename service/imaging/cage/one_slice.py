"""The only slice of a file as a frame between a process and its workers."""

from dataclasses import asdict, dataclass

import numpy as np

from service.imaging.cage.failures import crashed
from service.imaging.cage.messages import Head
from service.imaging.decode import DecodeLimits, Slice, decode, to_input


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded slice.

    Attributes:
        slice_: uint8 (1, H, W).
        network_input: the same, resized to uint8 (1, S, S) if an input size was asked for.
    """

    slice_: Slice
    network_input: Slice


def slice_order(limits: DecodeLimits, input_size: int | None, *, with_slice: bool) -> Head:
    """Build the order for a slice, its network's input, or both."""
    return {"kind": "slice", "limits": asdict(limits), "input_size": input_size, "with_slice": with_slice}


def pack_slice(order: Head, data: bytes) -> tuple[Head, list[bytes]]:
    """Decode a file; return head and parts of its slice.

    Raises:
        ServiceError: the file has no slice.
    """
    slice_ = decode(data, DecodeLimits(**order["limits"]))
    parts = [slice_.tobytes()] if order["with_slice"] else []
    if order["input_size"] is not None:
        parts.append(to_input(slice_, order["input_size"]).tobytes())
    return {"shape": slice_.shape[1:]}, parts


def unpack_decoded(head: Head, payload: bytes, input_size: int | None) -> Decoded:
    """Unpack a slice and its network's input, without trusting the worker.

    Raises:
        UnusableImageError: head and payload do not match.
    """
    try:
        height, width = (int(side) for side in head["shape"])
        area = height * width
        slice_ = np.frombuffer(payload, np.uint8, area).reshape(1, height, width)
    except (KeyError, TypeError, ValueError):
        raise crashed() from None
    return Decoded(slice_, slice_ if input_size is None else unpack_input(payload, input_size, area))


def unpack_input(payload: bytes, size: int, start: int = 0) -> Slice:
    """Copy the network's input, so that torch can share its memory; otherwise like `unpack_decoded`."""
    try:
        return np.frombuffer(payload, np.uint8, size**2, start).reshape(1, size, size).copy()
    except ValueError:
        raise crashed() from None
