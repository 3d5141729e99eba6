"""Frames between a process and its workers: a JSON head, then bytes. Nothing that a worker sends is unpickled."""

import json
import socket
import struct
from typing import Any, Final, TypeAlias

Head: TypeAlias = dict[str, Any]

LENGTHS: Final = struct.Struct(">II")
"""Length of the head, and of the bytes after it."""

MAX_HEAD_BYTES: Final = 65536

END: Final = b"complete"
"""Last bytes of a frame: longer than the exit status that follows an interrupted one."""

MEMORY: Final = "memory"
NO_MEMORY: Final = "no memory"
"""Errors of a worker that ends itself, because its limit or the machine gives it no more memory."""

FAULT: Final = "fault"
"""Error of a file on which this program fails."""


def send(connection: socket.socket, head: Head, *parts: bytes | memoryview) -> None:
    """Write a frame to a blocking socket."""
    connection.sendall(start(head, sum(len(part) for part in parts)))
    for part in (*parts, END):
        connection.sendall(part)


def receive_head(connection: socket.socket) -> tuple[Head, int]:
    """Read the head of a frame, and the number of bytes that follow it.

    Raises:
        EOFError: the other side closed the socket.
    """
    head_size, size = LENGTHS.unpack(_exactly(connection, LENGTHS.size))
    return json.loads(_exactly(connection, head_size)), size


def receive_data(connection: socket.socket, size: int) -> bytes:
    """Read the bytes after the head of a frame."""
    data = _exactly(connection, size)
    _exactly(connection, len(END))
    return data


def start(head: Head, size: int) -> bytes:
    """Build the start of a frame; `size` bytes and `END` follow it."""
    text = json.dumps(head).encode()
    return LENGTHS.pack(len(text), size) + text


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL) if size else b""
    if len(data) < size:
        raise EOFError
    return data
