"""docs/nginx.conf in front of the real service, with TLS."""

import contextlib
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest

from service.api_study import StudyLine
from tests.support.files.studies import zipped
from tests.support.networks.tiny import write_models
from tests.support.processes.client import noise, png
from tests.support.processes.server import ROOT, Server, free_port, running

EXAMPLE = ROOT / "docs" / "nginx.conf"
OPERATING = ROOT / "docs" / "operating.md"

pytestmark = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="needs nginx and openssl (Debian: nginx-light)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_models(models)
    with running(models, allowed_hosts="localhost,127.0.0.1,ct.example.org") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with behind_nginx(EXAMPLE.read_text(), server, tmp_path_factory.mktemp("nginx")) as client:
        yield client


@contextlib.contextmanager
def behind_nginx(example: str, server: Server, folder: Path) -> Iterator[httpx2.Client]:
    """Run nginx with a configuration like the example, and give a client of it."""
    port = free_port()
    key, certificate = folder / "key.pem", folder / "fullchain.pem"
    names = ["-subj", "/CN=ct.example.org", "-addext", "subjectAltName=DNS:ct.example.org"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files], check=True, capture_output=True
    )
    text = example.replace("/etc/nginx/tls", str(folder)).replace("listen 443", f"listen 127.0.0.1:{port}")
    text = re.sub(r"server 127\.0\.0\.1:8000", f"server 127.0.0.1:{server.port}", text)
    (folder / "nginx.conf").write_text(f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n{text}")
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    done = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port, folder)
        trusted = ssl.create_default_context(cafile=str(certificate))
        trusted.check_hostname = False  # asked for by address, under its name in Host
        headers = {"Host": "ct.example.org"}
        with httpx2.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, headers=headers, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _wait(process: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    for _ in range(200):
        assert process.poll() is None, (folder / "error.log").read_text()
        try:
            httpx2.get(f"http://127.0.0.1:{port}")
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("nginx was not there in time")


def test_a_slice_is_answered_through_the_proxy(client: httpx2.Client) -> None:
    response = client.post("/predict", files={"image": ("slice.png", png(), "image/png")})
    assert response.status_code == 200
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    assert response.headers["strict-transport-security"]
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_the_services_own_problems_arrive(client: httpx2.Client) -> None:
    response = client.post("/predict", files={"image": ("slice.png", b"no image", "image/png")})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_image_type")


def test_what_is_not_for_strangers_stays_inside(client: httpx2.Client) -> None:
    assert [client.get(path).status_code for path in ("/metrics", "/docs", "/openapi.json")] == [404] * 3
    assert client.get("/model").status_code == 200


def test_an_upload_of_megabytes_passes_the_proxy(client: httpx2.Client) -> None:
    assert client.post("/predict", files={"image": ("slice.png", noise(2000), "image/png")}).status_code == 200


def test_a_study_passes_the_proxy_line_by_line(client: httpx2.Client) -> None:
    body = {"image": ("ct.zip", zipped({"a.png": noise(5000), "b.png": noise(400)}))}
    response = client.post("/predict/study", files=body, headers={"Accept": "application/x-ndjson"})
    assert response.status_code == 200
    lines = [StudyLine.model_validate_json(line) for line in response.text.splitlines()]
    assert lines[-1].answer is not None
    assert lines[-1].answer.failed[0].reason == "too_many_pixels"


def test_the_example_allows_what_the_service_allows() -> None:
    from service.settings import Settings

    text = EXAMPLE.read_text()
    settings = Settings()
    assert f"client_max_body_size {settings.max_body_bytes // 1024**2}m" in text
    assert f"client_max_body_size {settings.max_study_bytes // 1024**2}m" in text
    answer, study = re.findall(r"proxy_read_timeout (\d+)s", text)
    assert float(answer) > settings.request_timeout_seconds
    assert float(study) > settings.study_timeout_seconds
    (head,) = re.findall(r"client_header_timeout (\d+)s", text)
    assert float(head) < settings.header_timeout_seconds


def test_the_page_works_behind_a_path_prefix(server: Server, tmp_path: Path) -> None:
    """Every link of the page, its scripts and the description of the API are relative to it."""
    (location,) = re.findall(r"^ +location /ct/ .*?^ +}", OPERATING.read_text(), re.MULTILINE | re.DOTALL)
    prefixed = re.sub(r"location / \{.*?\n        \}", location, EXAMPLE.read_text(), flags=re.DOTALL)
    with behind_nginx(prefixed, server, tmp_path) as client:
        page = client.get("/ct/")
        links = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
        scripts = client.get("/ct/page/app.js").text
        links += [urljoin("page/", name) for name in re.findall(r'from "(\./[^"]+)"', scripts)]
        calls = re.findall(r'(?:fetch|upload)\("([^"?]+)', client.get("/ct/page/service.js").text)
        assert {"page/app.js", "page/style.css", "model"} <= set(links)
        assert {
            urljoin("/ct/", link) for link in links if client.get(urljoin("/ct/", link)).status_code != 200
        } == set()
        assert set(calls) == {"model", "explain", "predict/study"}
        files = {"image": ("slice.png", png(), "image/png")}
        origin = {"Origin": f"https://{client.headers['Host']}"}
        assert client.post(urljoin("/ct/", "explain"), files=files, headers=origin).status_code == 200
        description = client.get("/ct/openapi.json")
        base = urljoin(str(description.url), description.json()["servers"][0]["url"])
        assert client.get(urljoin(base, "./model")).status_code == 200
