import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from covid_ct.errors import UsageError
from covid_ct.pacs.server import CtSeries, Pacs, PacsAwayError, PacsError
from tests.support.processes.server import free_port

SERIES = CtSeries("1.2", "1.2.1", 2, "")


@contextlib.contextmanager
def dicomweb(answer: Callable[[str, dict[str, list[str]]], tuple[int, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers GET with what `answer` gives for path and query; its address, and the requests' headers."""
    headers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers.append(self.headers)
            parts = urlsplit(self.path)
            status, body = answer(parts.path, parse_qs(parts.query))
            data = json.dumps(body).encode() if not isinstance(body, bytes) else body
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/dicom-web", headers
        finally:
            server.shutdown()
            thread.join()


def series_row(number: int, part: str | None = None, date: str = "20260101") -> dict[str, Any]:
    """A CT series as a search finds it."""
    values = {
        "0020000D": f"1.{number}",
        "0020000E": f"1.{number}.1",
        "00201209": 7,
        "00180015": part,
        "00080020": date,
    }
    return {tag: {"vr": "UN", "Value": [value]} for tag, value in values.items() if value is not None}


def uids(series: list[CtSeries]) -> list[str]:
    return [only.series_uid for only in series]


def test_series_of_other_parts_of_the_body_are_left_out() -> None:
    parts = [None, "", "CHEST", "Thorax", "CHESTABDPELVIS", "HEAD", "KNEE"]
    page = [series_row(number, part) for number, part in enumerate(parts)]
    with dicomweb(lambda path, query: (200, page if query.get("offset") in (None, ["0"]) else [])) as (url, _):
        series = Pacs(url).chest_series()
    assert uids(series) == [f"1.{number}.1" for number in range(5)]
    assert series[0].instances == 7


def test_the_latest_study_is_first() -> None:
    page = [series_row(1, date="20250101"), series_row(2, date="20260601"), series_row(3, date="20260101")]
    with dicomweb(lambda path, query: (200, page)) as (url, _):
        assert uids(Pacs(url).chest_series()) == ["1.2.1", "1.3.1", "1.1.1"]


@pytest.mark.parametrize("heeds_offset", [True, False])
def test_all_pages_of_a_search_are_read_and_it_ends(heeds_offset: bool) -> None:
    everything = [series_row(number) for number in range(5)]

    def pages(path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        offset = int(query.get("offset", ["0"])[0]) if heeds_offset else 0
        return 200, everything[offset : offset + 2] if heeds_offset else everything

    with dicomweb(pages) as (url, _):
        assert len(Pacs(url).chest_series()) == 5


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, PacsError), (404, PacsError), (500, PacsAwayError), (503, PacsAwayError), (429, PacsAwayError)],
)
def test_errors_tell_a_server_that_refuses_from_one_that_is_away(status: int, error: type[Exception]) -> None:
    with dicomweb(lambda path, query: (status, [])) as (url, _), pytest.raises(error, match=str(status)):
        Pacs(url).chest_series()


def test_a_server_that_does_not_listen_is_away() -> None:
    with pytest.raises(PacsAwayError, match="no response"):
        Pacs(f"http://127.0.0.1:{free_port()}/dicom-web").chest_series()


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with dicomweb(lambda path, query: (200, [])) as (url, _):
        assert Pacs(url).chest_series() == []


@pytest.mark.parametrize("proxy", ["socks4://proxy", "ftp://proxy", "http://", "http://proxy:99999"])
def test_a_proxy_that_cannot_be_used_ends_the_command_instead_of_a_wait(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)  # which overrides HTTP_PROXY
    with pytest.raises(UsageError, match="HTTP_PROXY"):
        Pacs("http://192.0.2.1/dicom-web").chest_series()


def test_certificates_that_cannot_be_read_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    with pytest.raises(UsageError, match="/no/such/file"):
        Pacs("https://192.0.2.1/dicom-web").chest_series()


def test_another_web_server_is_told_from_a_pacs() -> None:
    with dicomweb(lambda path, query: (200, b"<html>")) as (url, _), pytest.raises((PacsError, PacsAwayError)):
        Pacs(url).chest_series()


def test_the_authorization_is_sent_and_kept_out_of_the_address() -> None:
    with dicomweb(lambda path, query: (200, [])) as (url, headers):
        Pacs(url, "Bearer abc").chest_series()
    assert headers[0]["Authorization"] == "Bearer abc"
    with pytest.raises(UsageError, match="COVIDCT_PACS_AUTHORIZATION"):
        Pacs("http://name:password@127.0.0.1/dicom-web")


@pytest.mark.parametrize("url", ["127.0.0.1:8042", "ftp://127.0.0.1", "http://"])
def test_an_address_without_a_scheme_or_host_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="dicom-web"):
        Pacs(url)


def test_reports_of_other_software_are_not_fetched() -> None:
    asked = []

    def answer(path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        asked.append(path)
        dose = {"0020000E": {"vr": "UI", "Value": ["1.5"]}, "0008103E": {"vr": "LO", "Value": ["Dose report"]}}
        return 200, [dose]

    with dicomweb(answer) as (url, _):
        assert Pacs(url).reports("1.2") == []
    assert len(asked) == 1
