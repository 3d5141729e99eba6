"""Clients that hold connections of a service until their process is ended, as an attacker does."""

import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

_CLIENTS: Final = 16
_IDLE: Final = 520
"""Connections: more than the service accepts."""

_PAUSE_SECONDS: Final = 0.5

_LARGE: Final = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"

_CHUNKED: Final = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xyz\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\n--xyz\r\n0\r\n"
)


@contextmanager
def floods(port: int) -> Iterator[None]:
    """Flood the service from a process of its own, so that the clients that are measured have their interpreter."""
    process = subprocess.Popen([sys.executable, "-m", "tests.support.processes.floods", str(port)])
    try:
        yield
        assert process.poll() is None, "it floods until it is ended"
    finally:
        process.kill()
        process.wait()


def _never_read(port: int) -> None:
    """Request large responses and never read them."""
    _keep_open(port, _CLIENTS, 3 * _LARGE)


def _send_trailers_without_end(port: int) -> None:
    """Send trailers behind a chunked body until the service closes the connection; then again."""
    while True:
        time.sleep(_PAUSE_SECONDS)
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(_CHUNKED)
            while True:
                client.sendall(b"X-T: " + b"y" * 10_000 + b"\r\n")


def _be_idle(port: int) -> None:
    """Open more connections than the service accepts, and send nothing."""
    _keep_open(port, _IDLE, b"")


_FLOODS: Final[tuple[Callable[[int], None], ...]] = (
    _never_read,
    *[_send_trailers_without_end] * _CLIENTS,
    _be_idle,
)


def _keep_open(port: int, count: int, request: bytes) -> None:
    """Keep connections open that sent a request and read no answer; each that the service closes is opened again."""
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        while True:
            time.sleep(_PAUSE_SECONDS)
            closed = [key.fileobj for key, _ in selector.select(0) if isinstance(key.fileobj, socket.socket)]
            for client in [client for client in closed if _is_closed(client)]:
                selector.unregister(client)
                client.close()
            while len(selector.get_map()) < count:
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", port))
                with suppress(OSError):
                    client.sendall(request)
                selector.register(client, selectors.EVENT_READ)


def _is_closed(client: socket.socket) -> bool:
    """Whether nothing but the end can be read; what has arrived stays unread."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except ConnectionError:
        return True


if __name__ == "__main__":
    for flood in _FLOODS:
        threading.Thread(target=flood, args=(int(sys.argv[1]),)).start()
