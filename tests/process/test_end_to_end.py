"""The service as an operator runs it: a process, a port, signals."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.model.card import MANIFEST_NAME
from tests.support.networks.tiny import tiny_card, write_models
from tests.support.processes.client import png
from tests.support.processes.server import ROOT, Server, run_to_its_end, running

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_answered_after_the_signal_and_the_end_is_clean(models: Path, number: int) -> None:
    with running(models) as server, contextlib.ExitStack() as open_until_answered:
        clients = [open_until_answered.enter_context(begun(server)) for _ in range(8)]
        server.process.send_signal(number)
        for client in clients:
            client.sendall(BODY)
        answers = [read_all(client) for client in clients]
        status, output = server.end()
    assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 8
    assert status == 0, output
    assert "Traceback" not in output
    assert "no API keys are set; only this machine can reach the service" in output


BODY = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + png() + b"\r\n--xyz--\r\n"


def begun(server: Server) -> socket.socket:
    """A request that the service has begun to read: it says 100 when its route asks for the body, and not before."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    client.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    )
    assert client.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return client


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_no_model_is_one_line_that_names_the_manifest(tmp_path: Path) -> None:
    assert MANIFEST_NAME in one_line(run_to_its_end(tmp_path / "nothing"))


def test_a_corrupt_model_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    row = write_models(tmp_path)
    path = tmp_path / row.name
    path.write_bytes(path.read_bytes()[:1000])
    assert row.name in one_line(run_to_its_end(tmp_path))


def test_a_model_that_fails_its_self_check_is_one_line(tmp_path: Path) -> None:
    write_models(tmp_path, tiny_card(probability=0.99))
    assert "self-check" in one_line(run_to_its_end(tmp_path))


@pytest.mark.parametrize(("name", "value"), [("port", "seventy"), ("device", "tpu"), ("max_body_bytes", "-1")])
def test_a_wrong_setting_is_one_line_that_names_the_variable(models: Path, name: str, value: str) -> None:
    line = one_line(run_to_its_end(models, **{name: value}))
    assert f"COVIDCT_{name.upper()}" in line
    assert value in line


def test_a_setting_that_does_not_exist_is_one_line_that_names_it(models: Path) -> None:
    assert "COVIDCT_PROT: unknown setting" in one_line(run_to_its_end(models, prot=80))


def test_a_port_that_is_taken_is_one_line_that_names_it(models: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = one_line(run_to_its_end(models, port=port))
    assert str(port) in line


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


def test_the_service_imports_neither_training_nor_torchvision() -> None:
    script = "import sys, service.web.app, service.__main__; print(sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "'torch'" in done.stdout
    assert not {"training", "torchvision", "sklearn", "matplotlib"} & set(done.stdout.replace("'", " ").split())


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"host": "0.0.0.0", "api_key": "client-key-0123456789"},  # noqa: S104 - the client's key has no effect
            "other machines can reach the service: set COVIDCT_API_KEYS",
        ),
        ({"api_keys": "user-key-0123456789"}, None),
    ],
)
def test_the_log_is_json_lines_and_says_who_can_reach_a_service_without_keys(
    models: Path, settings: dict[str, Any], said: str | None
) -> None:
    with running(models, **settings) as server:
        httpx2.get(f"{server.url}/model")
        httpx2.get(f"{server.url}/nowhere")
        _, output = server.stop()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["status"] for line in lines if line.get("route") in ("/model", "unmatched")] == [200, 404]
    assert ("no API keys" in output) is (said is not None)
    assert said is None or said in output
    assert ("COVIDCT_API_KEY is the client's key" in output) is ("api_key" in settings)
    assert "user-key" not in output
    assert "client-key" not in output


def test_keys_that_cannot_be_used_are_one_line_that_names_the_setting(models: Path) -> None:
    assert "COVIDCT_API_KEYS" in one_line(run_to_its_end(models, api_keys="short"))
    assert "COVIDCT_API_KEYS_FILE" in one_line(run_to_its_end(models, api_keys_file=models / "none"))
