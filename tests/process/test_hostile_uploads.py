"""Every upload of the hostile corpus against the real service: its documented answer, and nothing else suffers."""

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.support.files.hostile import Case, bombs, corpus, form
from tests.support.processes.client import png
from tests.support.processes.server import Server

ALLOWED_GROWTH_MIB = 600
"""Of resident memory over the whole corpus: two decoders at a time, each with up to four copies of 4096 x 4096 x 4
bytes, and the bodies. The corpus asks for terabytes."""


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx2.Client]:
    """One for all: making a client takes longer than an upload."""
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client


def send(client: httpx2.Client, case: Case) -> httpx2.Response:
    body, content_type = form(case)
    headers = {"Content-Type": content_type, **case.headers}
    return client.post("/predict", content=body, headers=headers)


def peak_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1024


def test_every_upload_has_its_documented_answer_and_the_next_good_one_is_served(
    server: Server, client: httpx2.Client
) -> None:
    good = {"image": ("slice.png", png(), "image/png")}
    expected = client.post("/predict", files=good).json()["probability"]
    before, wrong, count = peak_mib(server), [], 0
    for case in corpus():
        count += 1
        response = send(client, case)
        is_problem = response.headers["content-type"] == "application/problem+json"
        answer = (response.status_code, response.json()["code"] if is_problem else None)
        if answer not in case.responses:
            wrong.append(f"{case.name}: {answer}, not one of {sorted(case.responses, key=str)}")
        after = client.post("/predict", files=good)
        assert (after.status_code, after.json()["probability"]) == (200, expected), case.name
        assert "Traceback" not in response.text
        assert "Pillow" not in response.text
    assert not wrong, "\n".join(wrong)
    assert count > 150
    assert peak_mib(server) - before < ALLOWED_GROWTH_MIB


def test_bombs_sent_together_stay_within_the_memory_too(server: Server, client: httpx2.Client) -> None:
    before = peak_mib(server)
    cases = [case for case in bombs() if len(case.content) < 5_000_000] * 3
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda case: send(client, case).status_code, cases))
    assert set(answers) <= {200, 422, 504}  # the last one on a busy machine
    assert peak_mib(server) - before < ALLOWED_GROWTH_MIB


def raw(server: Server, head: bytes, body: bytes) -> tuple[int, str]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + head + b"\r\n" + body)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, text = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(text)["code"]


FORM = b"Content-Type: multipart/form-data; boundary=xyz\r\n"
BODY = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + png() + b"\r\n--xyz--\r\n"


def test_a_length_that_is_too_short_cuts_the_form(server: Server) -> None:
    assert raw(server, FORM + b"Content-Length: 100\r\n", BODY) == (400, "malformed_request")


def test_a_body_in_chunks_without_a_length_is_served(server: Server) -> None:
    pieces = (BODY[start : start + 50] for start in range(0, len(BODY), 50))
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    assert httpx2.post(f"{server.url}/predict", content=pieces, headers=headers).status_code == 200
