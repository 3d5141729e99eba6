"""Decoding of the real service under files that do not end, and the ends of its processes."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.support.files.bombs import jpeg_of_many_scans
from tests.support.processes.client import png
from tests.support.processes.family import descendants, is_running, used, wait_for, workers
from tests.support.processes.server import Server, running

ENDLESS = jpeg_of_many_scans(scans=100_000)


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    """A service that drops what takes four seconds."""
    with running(
        models,
        request_timeout_seconds=4,
        header_timeout_seconds=4,
        receive_timeout_seconds=4,
        decode_seconds=60,
        drain_seconds=0,
    ) as started:
        yield started


def post(server: Server, data: bytes) -> httpx2.Response:
    return httpx2.post(f"{server.url}/predict", files={"image": ("slice", data, "image/png")}, timeout=60)


def busy(server: Server) -> bool:
    """Whether a worker has decoded for longer than usual slices take."""
    return any(used(worker) > 0.1 for worker in workers(server.process.pid))


def ended(server: Server, reason: str) -> float:
    """Number of decodes that were ended for this reason."""
    start = f'covidct_ended_decodes_total{{reason="{reason}"}}'
    lines = httpx2.get(f"{server.url}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(start)).split()[-1])


def test_files_that_do_not_end_time_out_and_their_decoding_ends_while_good_slices_are_answered(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(post, server, ENDLESS) for _ in range(4)]
        server.until(lambda: busy(server))
        began = time.perf_counter()
        assert post(server, png()).status_code == 200
        assert time.perf_counter() - began < 2
        assert httpx2.get(f"{server.url}/health/live").status_code == 200
        assert {answer.result().status_code for answer in answers} == {504}
    server.until(lambda: not busy(server))
    assert ended(server, "cancelled") >= 1


def test_a_file_beyond_the_limit_of_time_is_refused_and_counted(models: Path) -> None:
    with running(models, decode_seconds=0.3) as server:
        answer = post(server, ENDLESS)
        assert (answer.status_code, answer.json()["code"]) == (422, "limit_exceeded")
        assert ended(server, "time_limit") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_service_ends_while_it_decodes(server: Server, number: signal.Signals) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, server, ENDLESS)
        server.until(lambda: busy(server))
        family = descendants(server.process.pid)
        server.process.send_signal(number)
        server.process.wait(60)
        if number == signal.SIGKILL:
            assert isinstance(answer.exception(), httpx2.TransportError)
        else:
            assert answer.result().status_code == 504
    assert len(family) >= 3
    wait_for(lambda: not any(is_running(process) for process in family), 10)
