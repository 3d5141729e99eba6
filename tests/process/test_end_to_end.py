"""The service as an operator runs it: a process, a port, signals."""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.model.card import MANIFEST_NAME
from tests.support.processes.client import png
from tests.support.processes.server import ROOT, Server, running

KEY = "user-key-0123456789"
SHIPPED = ROOT / "models"


def predict(url: str, data: bytes) -> httpx2.Response:
    return httpx2.post(f"{url}/predict", files={"image": ("slice.png", data, "image/png")}, timeout=60)


def metric(url: str, name: str, **labels: str) -> float:
    """Sum over the samples of that name that have these labels."""
    families = text_string_to_metric_families(httpx2.get(f"{url}/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.mark.parametrize(
    ("number", "settings", "said"),
    [
        (
            signal.SIGTERM,
            {"host": "0.0.0.0", "api_key": "client-key-0123456789"},  # noqa: S104 - the client's key has no effect
            "other machines can reach the service: set COVIDCT_API_KEYS",
        ),
        (signal.SIGINT, {"api_keys": KEY}, None),
    ],
)
def test_requests_in_flight_are_answered_after_the_signal_and_the_log_says_who_can_reach_the_service(
    models: Path, number: int, settings: dict[str, Any], said: str | None
) -> None:
    with running(models, **settings) as server, contextlib.ExitStack() as open_until_answered:
        httpx2.get(f"{server.url}/model")
        httpx2.get(f"{server.url}/nowhere")
        clients = [open_until_answered.enter_context(begun(server)) for _ in range(8)]
        server.process.send_signal(number)
        for client in clients:
            client.sendall(BODY)
        answers = [read_all(client) for client in clients]
        status, output = server.end()
    assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 8
    assert status == 0, output
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["status"] for line in lines if line.get("route") in ("/model", "unmatched")] == [200, 404]
    assert not any("exception" in line for line in lines), output
    assert ("no API keys" in output) is (said is not None)
    assert said is None or said in output
    assert ("COVIDCT_API_KEY is the client's key" in output) is ("api_key" in settings)
    assert KEY not in output
    assert "client-key" not in output


BODY = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + png() + b"\r\n--xyz--\r\n"


def begun(server: Server) -> socket.socket:
    """A request that the service has begun to read: it says 100 when its route asks for the body, and not before."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    client.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nX-API-Key: %b\r\n"
        b"Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: %d\r\n\r\n" % (KEY.encode(), len(BODY))
    )
    assert client.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return client


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_answered_over_a_real_socket(server: Server, announced: bool) -> None:
    """A server that closes with bytes unread resets the connection, and the client never sees why."""
    size = 32 * 1024**2

    def chunks() -> Iterator[bytes]:
        head = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        yield head
        for _ in range(size // 65536):
            yield b"0" * 65536

    body = b"".join(chunks()) if announced else chunks()
    for _ in range(5):
        headers = {"content-type": "multipart/form-data; boundary=xyz"}
        response = httpx2.post(f"{server.url}/predict", content=body, headers=headers)
        assert response.status_code == 413
        body = body if announced else chunks()


@pytest.fixture(scope="module")
def shipped() -> Iterator[Server]:
    assert (SHIPPED / MANIFEST_NAME).is_file(), "the repository ships its model, and it is not there"
    with running(SHIPPED, threads=2) as server:
        yield server


def test_the_shipped_model_answers_and_prometheus_can_read_what_happened(shipped: Server) -> None:
    response = predict(shipped.url, (ROOT / "examples" / "slice.png").read_bytes())
    assert response.status_code == 200, response.text
    body = response.json()
    assert 0 <= body["probability"] <= 1
    card = httpx2.get(f"{shipped.url}/model").json()["card"]
    assert body["model"] == {"name": card["name"], "version": card["version"]}
    assert body["label"] in card["labels"]
    assert metric(shipped.url, "covidct_requests_total", route="/predict", status="200") == 1
    assert metric(shipped.url, "covidct_predictions_total", label=body["label"]) == 1
    assert metric(shipped.url, "covidct_model_info", version=card["version"]) == 1
    assert metric(shipped.url, "covidct_ready") == 1
