"""Load generator with the standard library only, for machines without wrk."""

import asyncio
import time
from statistics import quantiles

from training.run.record import Record

_HOST = "127.0.0.1"


class Load(Record):
    """Responses at a number of connections; times in milliseconds."""

    connections: int
    responses: int
    failed: int
    rate: float
    p50_ms: float
    p99_ms: float


async def load(port: int, image: bytes, connections: int, seconds: float) -> Load:
    """POST an image to /predict over some connections; each sends its next request after its response.

    Raises:
        OSError: no connection.
    """
    request = _request(image)
    until = time.perf_counter() + seconds
    started = time.perf_counter()
    clients = await asyncio.gather(*(_send_repeatedly(port, request, until) for _ in range(connections)))
    elapsed = time.perf_counter() - started
    times = sorted(seconds for succeeded, _ in clients for seconds in succeeded)
    cuts = quantiles(times, n=100) if len(times) > 1 else [float("nan")] * 99
    return Load(
        connections=connections,
        responses=len(times),
        failed=sum(failed for _, failed in clients),
        rate=len(times) / elapsed,
        p50_ms=1000 * cuts[49],
        p99_ms=1000 * cuts[98],
    )


async def is_ready(port: int) -> bool:
    """Whether the service on `port` of this machine is ready."""
    try:
        reader, writer = await asyncio.open_connection(_HOST, port)
    except OSError:
        return False
    writer.write(f"GET /health/ready HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode())
    status = await _read_status(reader)
    writer.close()
    return status == 200


async def _send_repeatedly(port: int, request: bytes, until: float) -> tuple[list[float], int]:
    """Send requests until the end; return the seconds of each success and the number of failures."""
    reader, writer = await asyncio.open_connection(_HOST, port)
    seconds: list[float] = []
    failed = 0
    while time.perf_counter() < until:
        sent = time.perf_counter()
        writer.write(request)
        if await _read_status(reader) == 200:
            seconds.append(time.perf_counter() - sent)
        else:
            failed += 1
    writer.close()
    return seconds, failed


async def _read_status(reader: asyncio.StreamReader) -> int:
    """Read one response with a Content-Length and return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(head.split(" ", 2)[1])


def _request(image: bytes) -> bytes:
    body = b'--bench\r\nContent-Disposition: form-data; name="image"; filename="slice.png"\r\n\r\n' + image
    body += b"\r\n--bench--\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: {_HOST}\r\nContent-Type: multipart/form-data; boundary=bench\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
