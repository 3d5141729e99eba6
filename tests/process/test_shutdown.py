"""Ends of requests, clients and the process, with a real process."""

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.support.processes.client import noise, png
from tests.support.processes.server import ROOT, Server, environment, free_port, running


class Load(threading.Thread):
    """A client that asks until it is told that the service is not ready, as a load balancer would send it away."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._url = server.url
        self.statuses: list[int] = []
        self.lost: list[Exception] = []
        self.stop = threading.Event()

    def run(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=30) as client:
            while not self.stop.is_set():
                try:
                    if client.get("/health/ready").status_code == 503:
                        return
                    files = {"image": ("slice.png", png(), "image/png")}
                    self.statuses.append(client.post("/predict", files=files).status_code)
                except httpx2.TransportError as error:
                    self.lost.append(error)
                    return


def test_at_sigterm_under_load_readiness_goes_first_and_every_request_is_answered(models: Path) -> None:
    with running(models, drain_seconds=1) as server:
        loads = [Load(server) for _ in range(8)]
        for load in loads:
            load.start()
        server.until(lambda: sum(len(load.statuses) for load in loads) >= 40)
        status, output = server.stop()
        for load in loads:
            load.join(10)
    assert status == 0, output
    assert "no API keys are set; only this machine can reach the service" in output
    assert [load.lost for load in loads] == [[]] * 8
    assert {answer for load in loads for answer in load.statuses} == {200}
    assert not any(load.is_alive() for load in loads)


def test_a_draining_service_takes_requests_and_is_not_ready_and_a_second_signal_ends_it_at_once(models: Path) -> None:
    with running(models, drain_seconds=50) as server:
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: httpx2.get(f"{server.url}/health/ready").status_code == 503)
        files = {"image": ("slice.png", png(), "image/png")}
        assert httpx2.post(f"{server.url}/predict", files=files).status_code == 200
        assert httpx2.get(f"{server.url}/health/live").status_code == 200
        assert "covidct_ready 0.0" in httpx2.get(f"{server.url}/metrics").text
        started = time.monotonic()
        status, _ = server.stop()
    assert time.monotonic() - started < 10, "it waited for the drain"
    assert status == 128 + signal.SIGTERM


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xyz\r\n"


def test_clients_that_leave_during_their_upload_or_their_prediction_free_their_slot(models: Path) -> None:
    slow = noise(2000)
    body = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + slow + b"\r\n--xyz--\r\n"
    with running(models, max_concurrent_requests=2) as server:
        for share, resets in ((0.5, False), (1.0, False), (1.0, True)):
            for _ in range(8):
                with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                    # with a linger time of 0 seconds, the end of a socket resets its connection
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", resets, 0))
                    client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[: int(share * len(body))])
        files = {"image": ("slice.png", png(), "image/png")}
        server.until(lambda: httpx2.post(f"{server.url}/predict", files=files, timeout=30).status_code == 200)
        text = httpx2.get(f"{server.url}/metrics").text
        assert "covidct_queue_depth 0.0" in text
        assert 'status="499"' in text


BROKEN = """
import socket, sys, time
from service.inference.service_state import load
from service.server.http_server import Server
from service.settings import Settings
from service.web.app import create_app

def lost(slices):
    raise RuntimeError("CUDA error: unspecified launch failure")

def stuck(slices):
    time.sleep(1000)

settings = Settings()
predictor = load(settings)
network = predictor._network

def slow(slices):
    time.sleep(0.5)
    return network(slices)

predictor._network = globals()[sys.argv[1]]
listener = socket.socket()
listener.bind(("127.0.0.1", settings.port))
Server(create_app(settings, predictor), settings).run([listener])
"""


@contextlib.contextmanager
def broken(models: Path, how: str, **settings: object) -> Iterator["tuple[subprocess.Popen[str], str]"]:
    """A service whose network breaks after the self-check, and its URL."""
    port = free_port()
    command = [sys.executable, "-c", BROKEN, how]
    with subprocess.Popen(
        command, env=environment(models, port=port, **settings), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def test_a_lost_device_makes_the_service_unready_and_ends_it_for_its_supervisor(models: Path) -> None:
    statuses = []
    with broken(models, "lost") as (process, url), httpx2.Client(base_url=url) as client:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                files = {"image": ("slice.png", png(), "image/png")}
                statuses.append(client.post("/predict", files=files).status_code)
                statuses.append(client.get("/health/ready").status_code)
            time.sleep(0.02)
        assert process.wait(5) == 1
    assert statuses[0] == 500
    assert set(statuses[1:]) <= {503}


def test_a_network_that_hangs_makes_the_service_not_live_and_ends_it_for_its_supervisor(models: Path) -> None:
    """A container engine does not restart an unhealthy container: the process has to end."""
    statuses: list[int] = []
    with broken(models, "stuck", request_timeout_seconds=1) as (process, url):
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                if not statuses:
                    files = {"image": ("slice.png", png(), "image/png")}
                    statuses.append(httpx2.post(f"{url}/predict", files=files).status_code)
                statuses.append(httpx2.get(f"{url}/health/live").status_code)
            time.sleep(0.02)
        assert process.wait(5) == 1
        assert process.stderr is not None
        assert "the network no longer answers; ending" in process.stderr.read()
    assert statuses[0] == 504
    assert statuses[-1] == 503


def test_time_that_the_process_was_stopped_is_no_hang(models: Path) -> None:
    """SIGSTOP in the middle of a batch, as `docker pause` or a paused virtual machine, longer than any limit."""
    files = {"image": ("slice.png", png(), "image/png")}
    with broken(models, "slow", request_timeout_seconds=1) as (process, url), ThreadPoolExecutor(1) as pool:
        _wait_until_live(url)
        answer = pool.submit(httpx2.post, f"{url}/predict", files=files, timeout=60)
        deadline = time.monotonic() + 60
        while "covidct_batch_size_count 1.0" not in httpx2.get(f"{url}/metrics").text:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        assert answer.result().status_code in {200, 504}
        assert httpx2.get(f"{url}/health/live").status_code == 200
        assert httpx2.post(f"{url}/predict", files=files, timeout=60).status_code == 200
        assert process.poll() is None


def _wait_until_live(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{url}/health/live").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("it never answered")
