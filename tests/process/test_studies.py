"""Studies through the real service: files that go wrong, many files, and a client that leaves."""

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from service.api_study import StudyAnswer
from tests.process.test_decoders import ENDLESS, busy
from tests.support.files.studies import series, zipped
from tests.support.processes.client import png
from tests.support.processes.server import Server, running

HEIGHTS = [20.0 + step for step in range(0, 260, 5)]


@pytest.fixture(scope="module")
def patient(models: Path) -> Iterator[Server]:
    """A service that decodes a file for as long as it likes."""
    with running(models, decode_seconds=600) as started:
        yield started


def post(server: Server, files: dict[str, bytes], query: str = "") -> StudyAnswer:
    fields = [("image", (name, data)) for name, data in files.items()]
    response = httpx2.post(f"{server.url}/predict/study{query}", files=fields, timeout=300)
    response.raise_for_status()
    return StudyAnswer.model_validate_json(response.content)


def test_a_damaged_and_an_endless_file_among_300_are_rows_and_the_rest_is_answered(models: Path) -> None:
    heights = [20.0 + 0.8 * step for step in range(300)]
    files = {f"{number:03d}": data for number, data in enumerate(series(heights))}
    files["300"] = files["003"][:-500]
    files["301"] = ENDLESS
    with running(models, decode_seconds=0.3) as server:
        answer = post(server, {"ct.zip": zipped(files)}, "?every_mm=0")
    assert answer.series[0].slices_read == 300
    assert [other.reason for other in answer.failed] == ["damaged_image", "limit_exceeded"]


def test_twenty_thousand_files_are_answered_within_the_limits(patient: Server) -> None:
    files = {f"{number:03d}": data for number, data in enumerate(series(HEIGHTS))}
    notes = {f"notes/{number:05d}.txt": b"text" for number in range(20_000 - len(files))}
    answer = post(patient, {"ct.zip": zipped(files | notes)})
    assert answer.series[0].slices_read == len(HEIGHTS)
    assert len(answer.skipped) == len(notes)


def test_a_client_that_closes_its_connection_stops_the_work_at_the_next_line(patient: Server) -> None:
    with httpx2.Client(base_url=patient.url, timeout=60) as client:
        headers = {"accept": "application/x-ndjson"}
        with client.stream("POST", "/predict/study", files=zip_of_endless(), headers=headers) as response:
            lines = response.iter_lines()
            assert [json.loads(next(lines))["progress"]["done"] for _ in range(2)] == [0, 0]
            patient.until(lambda: busy(patient))
    patient.until(lambda: not busy(patient))
    answer = post(patient, {"a.png": png(200)})
    assert answer.series[0].slices_read == 1


def zip_of_endless() -> dict[str, tuple[str, bytes]]:
    """A study whose only file is decoded for ever."""
    return {"image": ("ct.zip", zipped({"a": ENDLESS}))}


def test_a_client_that_resets_its_connection_stops_the_work(patient: Server) -> None:
    request = httpx2.Request("POST", f"{patient.url}/predict/study", files=zip_of_endless())
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join(["POST /predict/study HTTP/1.1", *lines, "", ""]).encode()
    with socket.create_connection(("127.0.0.1", request.url.port or 80)) as connection:
        connection.sendall(head + request.read())
        patient.until(lambda: busy(patient))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    patient.until(lambda: not busy(patient))
