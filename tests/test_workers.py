"""Several workers on one port, as processes."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server import Server, run_to_its_end, running
from tests.service.client import png
from tests.tiny import tiny_card, write_models

COUNT = 2
KEY = "admin-key-0123456789"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_models(tmp_path)
    return tmp_path


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    with running(models, workers=COUNT, api_keys=f"admin:{KEY}") as server:
        yield server


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def workers(server: Server) -> list[int]:
    """The grandchildren: the supervisor has a server of forks start them."""
    return [worker for child in children(server.process.pid) for worker in children(child)]


def predict(server: Server) -> int:
    """Over a connection of its own, which any worker may take."""
    files = {"image": ("slice.png", png(), "image/png")}
    return httpx2.post(f"{server.url}/predict", files=files, headers={"X-API-Key": KEY}, timeout=30).status_code


def metric(server: Server, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(httpx2.get(f"{server.url}/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def answered(server: Server) -> float:
    """Predictions by the counter, which counts one when its last byte is sent: a moment after the client has it."""
    return metric(server, "covidct_requests_total", route="/predict", status="200")


def until(condition: Callable[[], bool], seconds: float = 30) -> float:
    """How long it took to become true."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        with contextlib.suppress(httpx2.TransportError):
            if condition():
                return time.monotonic() - started
        time.sleep(0.02)
    raise AssertionError("it did not become true in time")


def test_totals_are_those_of_all_workers_whoever_is_asked(server: Server) -> None:
    assert len(workers(server)) == COUNT
    assert [predict(server) for _ in range(20)] == [200] * 20
    until(lambda: answered(server) == 20, 5)
    for _ in range(10):
        assert answered(server) == 20
        assert metric(server, "covidct_predictions_total") == 20
        assert metric(server, "covidct_probability_count") == 20
        assert metric(server, "covidct_model_info") == 1
        assert metric(server, "covidct_ready") == 1


def test_a_worker_that_is_killed_is_replaced_and_readiness_tells(server: Server) -> None:
    before = workers(server)
    assert predict(server) == 200
    until(lambda: answered(server) == 1, 5)
    os.kill(before[0], signal.SIGKILL)
    until(lambda: httpx2.get(f"{server.url}/health/ready").status_code == 503, 5)
    seconds = until(lambda: httpx2.get(f"{server.url}/health/ready").status_code == 200)
    assert seconds < 5
    assert before[1] in workers(server)
    assert len(workers(server)) == COUNT
    assert before[0] not in workers(server)
    assert metric(server, "covidct_worker_restarts_total") == 1
    assert answered(server) == 1, "of a worker that is no more"
    assert metric(server, "covidct_ready") == 1
    assert predict(server) == 200


def test_a_worker_that_hangs_makes_the_service_unready(server: Server) -> None:
    stopped, other = workers(server)
    os.kill(stopped, signal.SIGSTOP)
    try:
        # The kernel may give a connection to the one that is stopped, which never answers: ask with little patience.
        def unready() -> bool:
            return httpx2.get(f"{server.url}/health/ready", timeout=0.5).status_code == 503

        until(unready)
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: httpx2.get(f"{server.url}/health/ready").status_code == 200)
    assert other in workers(server)


def shown_versions(server: Server) -> set[str]:
    families = text_string_to_metric_families(httpx2.get(f"{server.url}/metrics").text)
    return {
        sample.labels["version"]
        for family in families
        for sample in family.samples
        if sample.name == "covidct_model_info" and sample.value
    }


@pytest.mark.parametrize("how", ["signal", "route"])
def test_a_reload_reaches_every_worker(server: Server, models: Path, how: str) -> None:
    write_models(models, tiny_card().model_copy(update={"version": "0.0.2"}))
    if how == "signal":
        server.process.send_signal(signal.SIGHUP)
    else:
        answer = httpx2.post(f"{server.url}/admin/reload", headers={"X-API-Key": KEY}, timeout=30)
        assert answer.json()["version"] == "0.0.2"
    until(lambda: shown_versions(server) == {"0.0.2"})
    answers = {httpx2.get(f"{server.url}/model").json()["card"]["version"] for _ in range(20)}
    assert answers == {"0.0.2"}
    assert metric(server, "covidct_model_reloads_total", outcome="failure") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_is_clean_and_leaves_nobody(server: Server, number: int) -> None:
    everyone = [*children(server.process.pid), *workers(server)]
    status, output = server.stop(number)
    assert status == 0, output
    assert "Traceback" not in output
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone), 10)


def test_workers_end_when_their_supervisor_is_killed(server: Server) -> None:
    everyone = workers(server)
    server.process.kill()
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone), 20) < 20


def test_a_model_that_cannot_be_served_is_one_line_however_many_workers(tmp_path: Path) -> None:
    done = run_to_its_end(tmp_path / "nothing", workers=3)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "metrics.json" in done.stderr
