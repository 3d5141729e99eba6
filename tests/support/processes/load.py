"""Clients that load a running service: raw sockets, so that a client costs little beside the service it measures."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.processes.server import Server


def request(image: bytes) -> bytes:
    """POST /predict with `image`, on a connection that stays open."""
    body = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image + b"\r\n--xyz--\r\n"
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xyz\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Client:
    """One connection."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, data: bytes) -> int:
        """Send a request, read its whole answer, and return the status.

        Raises:
            ConnectionError: it was closed before the answer was whole.
        """
        self.send(data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None, head
        left = int(length[1]) - len(body)
        while left > 0:
            left -= len(self._more())
        return int(head.split(None, 2)[1])

    def send(self, data: bytes) -> None:
        """Send some bytes and wait for nothing."""
        self._socket.sendall(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _more(self) -> bytes:
        part = self._socket.recv(65536)
        if not part:
            raise ConnectionError("closed before the answer was whole")
        return part


@contextlib.contextmanager
def connected(server: Server) -> Iterator[Client]:
    """A client that is closed at the end."""
    client = Client(server)
    try:
        yield client
    finally:
        client.close()


def run_together(count: int, work: Callable[[], None]) -> list[threading.Thread]:
    """Start `work` in `count` threads."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def timed(ask: Callable[[], object], count: int) -> list[float]:
    """Seconds that each of `count` calls took, sorted."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        ask()
        times.append(time.perf_counter() - started)
    return sorted(times)


class Held:
    """Memory, descriptors and threads of a process now."""

    def __init__(self, pid: int) -> None:
        status = Path(f"/proc/{pid}/status").read_text()
        self.resident_kib = int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
        self.threads = int(re.findall(r"Threads:\s+(\d+)", status)[0])
        self.descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
