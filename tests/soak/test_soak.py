"""Load tests that are too long for every run; `make soak` prints the figures of docs/reliability.md."""

import contextlib
import itertools
import os
import random
import signal
import socket
import statistics
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.model.card import MANIFEST_NAME
from tests.support.networks.tiny import tiny_card, write_models
from tests.support.processes.client import png
from tests.support.processes.load import GET, Client, Held, connected, request, run_together, timed
from tests.support.processes.server import ROOT, Server, running

pytestmark = pytest.mark.soak

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "50000"))
WARM = REQUESTS // 10
CLIENTS = 8


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_models(tmp_path)
    return tmp_path


def tell(what: str) -> None:
    print(f"\n  soak: {what}", flush=True)


def test_memory_descriptors_and_threads_stay_as_they_are(models: Path) -> None:
    """Good slices of many sizes, bad ones, unknown routes, and clients that leave, mixed."""
    asks = [request(png(level, side)) for level in (40, 120, 200) for side in (64, 200, 512)]
    asks += [request(b"no image"), request(png()[:70]), GET % b"/nowhere", GET % b"/health/ready"]
    numbers = itertools.count()
    with running(models, log_level="WARNING") as server:

        def load() -> None:
            generator = random.Random(threading.get_ident())
            client = Client(server)
            while (number := next(numbers)) < stop_at:
                if number % 500 == 0:
                    client.close()
                    leave_amid_an_upload(server)
                    client = Client(server)
                assert client.ask(generator.choice(asks)) in (200, 404, 415, 422)
            client.close()

        stop_at = WARM
        finish(run_together(CLIENTS, load))
        before = settled(server)
        numbers, stop_at = itertools.count(), REQUESTS - WARM
        finish(run_together(CLIENTS, load))
        after = settled(server)
    growth = after.resident_kib / before.resident_kib - 1
    tell(
        f"{REQUESTS} requests: resident {before.resident_kib >> 10} MiB after {WARM}, {growth:+.2%} at the end; "
        f"descriptors {before.descriptors} -> {after.descriptors}, threads {before.threads} -> {after.threads}"
    )
    assert growth <= 0.02
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads


def leave_amid_an_upload(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(request(png(side=512))[:-200])


def finish(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def settled(server: Server) -> Held:
    """Once the connections of the last clients are closed on the other side too."""
    seen = [Held(server.process.pid).descriptors]
    for _ in range(100):
        time.sleep(0.1)
        seen.append(Held(server.process.pid).descriptors)
        if len(seen) > 20 and len(set(seen[-20:])) == 1:
            break
    return Held(server.process.pid)


def test_twenty_ends_under_load_leave_no_request_unanswered(models: Path) -> None:
    ask, begun, answered, ends = request(png()), itertools.count(), itertools.count(), []
    for _ in range(20):
        with running(models, log_level="WARNING") as server:
            busy = threading.Event()

            def load(server: Server = server, busy: threading.Event = busy) -> None:
                with connected(server) as client:
                    while client.ask(GET % b"/health/ready") == 200:
                        next(begun)
                        assert client.ask(ask) == 200
                        if next(answered) % 100 == 99:
                            busy.set()

            threads = run_together(CLIENTS, load)
            assert busy.wait(60)
            started = time.monotonic()
            status, output = server.stop()
            ends.append(time.monotonic() - started)
            finish(threads)
            assert status == 0, output
    count = next(answered)
    lost = next(begun) - count
    tell(
        f"20 x SIGTERM under load: {count} answered, {lost} lost; to the end "
        f"{statistics.median(ends):.1f} s (median), {max(ends):.1f} s (longest)"
    )
    assert lost == 0
    assert max(ends) < 30


def test_two_hundred_slow_clients_slow_the_others_by_a_tenth_at_most(models: Path) -> None:
    ask = request(png(side=512))
    with running(models, log_level="WARNING", header_timeout_seconds=10) as server:
        stop = threading.Event()

        def trickle() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError), connected(server) as client:
                    for byte in ask:
                        client.send(bytes([byte]))
                        if stop.wait(1.0):
                            return

        ratios = []
        for _ in range(5):
            with connected(server) as client:
                alone = statistics.median(timed(lambda: client.ask(ask), 400))
                stop.clear()
                threads = run_together(200, trickle)
                time.sleep(1)
                beside = statistics.median(timed(lambda: client.ask(ask), 400))
                stop.set()
                finish(threads)
            ratios.append(beside / alone)
    ratio = statistics.median(ratios)
    tell(f"200 slow clients: a request takes {ratio:.3f} times as long as without (median of {len(ratios)} pairs)")
    assert ratio <= 1.10


def test_metrics_and_health_answer_at_once_during_overload() -> None:
    """The shipped network, with four times as many clients as its queue has places."""
    assert (ROOT / "models" / MANIFEST_NAME).is_file()
    ask = request((ROOT / "examples" / "slice.png").read_bytes())
    statuses: list[int] = []
    limits: dict[str, Any] = {"queue_max_length": 8, "max_images_per_request": 8, "max_concurrent_requests": 16}
    with running(ROOT / "models", threads=2, log_level="ERROR", **limits) as server:
        stop = threading.Event()

        def load() -> None:
            with connected(server) as client:
                while not stop.is_set():
                    statuses.append(client.ask(ask))
                    if statuses[-1] == 503:
                        stop.wait(0.2)  # a fifth of what Retry-After asks for

        threads = run_together(32, load)
        time.sleep(2)
        with connected(server) as client:
            times = {path: timed(partial(client.ask, GET % path), 100) for path in (b"/metrics", b"/health/live")}
        stop.set()
        finish(threads)
    longest = {path.decode(): values[98] for path, values in times.items()}
    tell(
        "overload: "
        + ", ".join(f"{path} {seconds * 1000:.0f} ms (99 %)" for path, seconds in longest.items())
        + f"; {statuses.count(200)} answered and {statuses.count(503)} sent away meanwhile"
    )
    assert statuses.count(503) > 10
    assert set(statuses) == {200, 503}
    assert max(longest.values()) < 0.1


def test_two_hundred_reloads_under_load_lose_nothing_and_keep_no_memory(models: Path) -> None:
    ask = request(png())
    statuses: list[int] = []
    with running(models, log_level="ERROR") as server:
        stop = threading.Event()

        def load() -> None:
            with connected(server) as client:
                while not stop.is_set():
                    statuses.append(client.ask(ask))

        threads = run_together(4, load)

        def exchange(versions: range) -> Held:
            for number in versions:
                version = f"1.0.{number}"
                write_models(models, tiny_card().model_copy(update={"version": version}))
                server.process.send_signal(signal.SIGHUP)
                while httpx2.get(f"{server.url}/model").json()["card"]["version"] != version:
                    time.sleep(0.01)
            return Held(server.process.pid)

        before = exchange(range(50))
        exchange(range(50, 200))
        stop.set()
        finish(threads)
        after = settled(server)
    growth = after.resident_kib / before.resident_kib - 1
    failed = sum(status != 200 for status in statuses)
    tell(
        f"200 reloads under load: {len(statuses)} requests, {failed} failed; resident {growth:+.2%} after the first 50"
    )
    assert set(statuses) == {200}
    assert growth <= 0.05
    assert after.threads <= before.threads
