"""Load generators: wrk for closed loops, and requests at a given pace for latency below capacity."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx2
import psutil

from training.run.record import Record

_SCRIPT: Final = Path(__file__).with_name("post.lua")
_READY_SECONDS: Final = 180
_LOOK_SECONDS: Final = 0.5
_IDLE_SHARE: Final = 0.1
"""Share of one processor; Ray's background work takes less."""
_IDLE_LOOKS: Final = 240


class Measured(Record):
    """Counts of one wrk run.

    Attributes:
        responses: number of responses with status 200.
        seconds: from the start of the load to the last of these responses.
        p50_ms, p99_ms: latency of all responses in milliseconds.
        failed: requests without connection, cut off, timed out, or with a status of 400 or more.
    """

    responses: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def rate(self) -> float:
        """Responses with status 200 per second."""
        return self.responses / self.seconds if self.responses else 0.0


def load_with_wrk(url: str, image: Path, connections: int, seconds: int) -> Measured:
    """POST the image over `connections` connections; each sends its next request after its response."""
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--timeout", "300s", "--script", str(_SCRIPT), url]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"BENCH_IMAGE": str(image)}
    )
    return Measured(**json.loads(run.stdout.splitlines()[-1]))


def wait_for_response(process: psutil.Process, url: str, image: bytes) -> float:
    """Send requests until one succeeds, and return the seconds from process start to its response.

    Raises:
        RuntimeError: the process ended, or timed out.
    """
    started = process.create_time()
    while time.time() - started < _READY_SECONDS:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError("the process ended before its first response")
        try:
            if httpx2.post(url, files={"image": image}, timeout=_READY_SECONDS).status_code == 200:
                return time.time() - started
        except httpx2.TransportError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"no response within {_READY_SECONDS} s")


def wait_until_idle(root: psutil.Process) -> None:
    """Wait until a process and its children are idle; some servers finish requests of disconnected clients.

    Raises:
        RuntimeError: they are still busy after two minutes.
    """
    for _ in range(_IDLE_LOOKS):
        before = _processor_seconds(root)
        time.sleep(_LOOK_SECONDS)
        if _processor_seconds(root) - before < _IDLE_SHARE * _LOOK_SECONDS:
            return
    raise RuntimeError("the server was still computing two minutes after the end of its load")


def _processor_seconds(root: psutil.Process) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _family(root))


class PeakMemory:
    """Peak memory of a process and its children, sampled ten times per second.

    Resident set size: shared pages count once for each process.
    """

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mib = 0.0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            held = sum(process.memory_info().rss for process in _family(self._root))
            self.mib = max(self.mib, held / 2**20)


def _family(root: psutil.Process) -> Iterator[psutil.Process]:
    """Yield the process and its living children, each with its counters read once."""
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
            process.cpu_times()
            process.memory_info()
            yield process


def send_at_pace(url: str, image: bytes, gaps: list[float]) -> list[float]:
    """Send a request after each gap, without waiting for earlier responses.

    Args:
        gaps: seconds before each request.

    Returns:
        Seconds from sending to the response, in the order of sending; refused requests (503) are left out.

    Raises:
        httpx2.HTTPStatusError: a response had another error status.
    """
    return asyncio.run(_send_at_pace(url, image, gaps))


async def _send_at_pace(url: str, image: bytes, gaps: list[float]) -> list[float]:
    async with httpx2.AsyncClient(timeout=300) as client:

        async def send() -> float | None:
            started = time.perf_counter()
            response = await client.post(url, files={"image": image})
            if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                return None
            response.raise_for_status()
            return time.perf_counter() - started

        due = time.perf_counter()
        tasks = []
        for gap in gaps:
            due += gap
            await asyncio.sleep(due - time.perf_counter())
            tasks.append(asyncio.create_task(send()))
        return [seconds for seconds in await asyncio.gather(*tasks) if seconds is not None]


def steady(rate: float, count: int) -> list[float]:
    """Return equal gaps in seconds."""
    return [1 / rate] * count


def poisson(rate: float, count: int, seed: int = 0) -> list[float]:
    """Return exponentially distributed gaps in seconds, as of independent clients."""
    generator = random.Random(seed)
    return [generator.expovariate(rate) for _ in range(count)]
