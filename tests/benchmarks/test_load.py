"""The load generators, measured with a real server of known speed."""

import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from benchmarks.load import PeakMemory, load_with_wrk, poisson, send_at_pace, steady

SECONDS_A_RESPONSE = 0.1
IMAGE = Path(__file__).parents[2] / "examples" / "slice.png"


class OneAtATime(BaseHTTPRequestHandler):
    """Serves one request at a time, in their order, each after the same delay."""

    protocol_version = "HTTP/1.1"
    turns = ThreadPoolExecutor(1)
    seconds = SECONDS_A_RESPONSE

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.turns.submit(time.sleep, self.seconds).result()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class SixAtATime(OneAtATime):
    """Serves six requests together, more slowly, and notes when the first one arrived and each response was ready."""

    turns = ThreadPoolExecutor(6)
    seconds = 6 * SECONDS_A_RESPONSE
    arrived: ClassVar[list[float]] = []
    sent: ClassVar[list[float]] = []

    def do_POST(self) -> None:
        self.arrived.append(time.monotonic())
        super().do_POST()

    def send_response(self, code: int, message: str | None = None) -> None:
        self.sent.append(time.monotonic())
        super().send_response(code, message)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server of known capacity and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/predict"
        finally:
            server.shutdown()


@pytest.fixture
def url() -> Iterator[str]:
    with serving(OneAtATime) as url:
        yield url


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
@pytest.mark.parametrize("connections", [1, 4])
def test_wrk_measures_the_rate_of_the_server(url: str, connections: int) -> None:
    measured = load_with_wrk(url, IMAGE, connections, 2)
    assert measured.failed == 0
    assert measured.rate == pytest.approx(1 / SECONDS_A_RESPONSE, rel=0.25)
    assert measured.p50_ms == pytest.approx(1000 * SECONDS_A_RESPONSE * connections, rel=0.3)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_first_responses_of_a_server_that_sends_several_together_take_time_too() -> None:
    with serving(SixAtATime) as url:
        measured = load_with_wrk(url, IMAGE, 12, 2)
    last = sorted(SixAtATime.sent)[measured.responses - 1]
    assert measured.seconds == pytest.approx(last - min(SixAtATime.arrived), abs=SixAtATime.seconds / 2)


def test_requests_at_a_pace_below_capacity_do_not_wait_for_each_other(url: str) -> None:
    times = send_at_pace(url, b"image", steady(0.5 / SECONDS_A_RESPONSE, 10))
    assert len(times) == 10
    assert statistics.median(times) < 1.5 * SECONDS_A_RESPONSE


def test_random_gaps_have_the_given_mean_and_repeat_with_the_seed() -> None:
    gaps = poisson(20.0, 4000)
    assert sum(gaps) / len(gaps) == pytest.approx(1 / 20, rel=0.05)
    assert gaps == poisson(20.0, 4000)


def test_peak_memory_includes_the_process() -> None:
    with PeakMemory(psutil.Process()) as memory:
        held = bytearray(64 * 2**20)
        peak = psutil.Process().memory_info().rss / 2**20
        while memory.mib < peak - 1:
            threading.Event().wait(0.05)
        del held
    assert memory.mib >= peak - 1
