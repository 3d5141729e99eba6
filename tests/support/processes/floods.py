"""Clients that hold connections of a service until an event, as an attacker does."""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, TypeAlias

from tests.support.processes.server import Server

Flood: TypeAlias = Callable[[Server, threading.Event], None]

_CLIENTS: Final = 16
_IDLE: Final = 520
"""Connections: more than the service accepts."""

_PAUSE_SECONDS: Final = 0.5

_LARGE: Final = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"

_CHUNKED: Final = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xyz\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\n--xyz\r\n0\r\n"
)


def never_read(server: Server, done: threading.Event) -> None:
    """Request large responses and never read them."""
    _keep_open(server, done, _CLIENTS, 3 * _LARGE)


def send_trailers_without_end(server: Server, done: threading.Event) -> None:
    """Send trailers behind a chunked body until the service closes the connection; then again."""
    while not done.wait(_PAUSE_SECONDS):
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(_CHUNKED)
            while not done.is_set():
                client.sendall(b"X-T: " + b"y" * 10_000 + b"\r\n")


def be_idle(server: Server, done: threading.Event) -> None:
    """Open more connections than the service accepts, and send nothing."""
    _keep_open(server, done, _IDLE, b"")


FLOODS: Final[tuple[Flood, ...]] = (never_read, *[send_trailers_without_end] * _CLIENTS, be_idle)


def _keep_open(server: Server, done: threading.Event, count: int, request: bytes) -> None:
    """Keep connections open that sent a request and read no answer; each that the service closes is opened again."""
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        while not done.wait(_PAUSE_SECONDS):
            closed = [key.fileobj for key, _ in selector.select(0) if isinstance(key.fileobj, socket.socket)]
            for client in [client for client in closed if _is_closed(client)]:
                selector.unregister(client)
                client.close()
            while len(selector.get_map()) < count:
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", server.port))
                with suppress(OSError):
                    client.sendall(request)
                selector.register(client, selectors.EVENT_READ)


def _is_closed(client: socket.socket) -> bool:
    """Whether nothing but the end can be read; what has arrived stays unread."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except ConnectionError:
        return True
