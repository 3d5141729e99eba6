"""Slow, large, malformed and too many requests, over real sockets; uvicorn alone has no limits for them."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.networks.tiny import write_models
from tests.support.processes.client import png
from tests.support.processes.load import Held
from tests.support.processes.server import Server, running

HEADER_SECONDS = 1.0
RECEIVE_SECONDS = 1.0
MAX_CONNECTIONS = 260
FORM = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xyz\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_models(models)
    with running(
        models,
        header_timeout_seconds=HEADER_SECONDS,
        receive_timeout_seconds=RECEIVE_SECONDS,
        max_connections=MAX_CONNECTIONS,
        log_level="WARNING",
    ) as server:
        yield server


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def exchange(server: Server, data: bytes) -> bytes:
    """Everything that the service answers to `data` until it closes."""
    with connect(server) as client:
        client.sendall(data)
        return read_to_the_end(client)


def read_to_the_end(client: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower(), answer
    assert b"connection: close" in head.lower()
    assert len(json.loads(body)["request_id"]) == 32
    return int(head.split()[1]), json.loads(body)["code"]


def is_well(server: Server) -> bool:
    files = {"image": ("slice.png", png(), "image/png")}
    return httpx2.post(f"{server.url}/predict", files=files, timeout=30).status_code == 200


@pytest.mark.parametrize("head", [b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n", b"P", HEAD])
def test_headers_that_do_not_end_are_a_408(server: Server, head: bytes) -> None:
    started = time.monotonic()
    assert problem(exchange(server, head)) == (408, "receive_timeout")
    assert HEADER_SECONDS * 0.9 < time.monotonic() - started < HEADER_SECONDS + 5


def test_a_connection_that_never_asks_is_closed(server: Server) -> None:
    assert exchange(server, b"") == b""


@pytest.mark.parametrize("drop", [b"x", b"\r\n"])
def test_a_head_that_trickles_is_a_408_all_the_same(server: Server, drop: bytes) -> None:
    """Each byte comes long before any limit of a single pause."""
    with connect(server) as client:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < HEADER_SECONDS + 10:
                client.sendall(drop)
                client.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    if client.recv(65536):
                        break
                    return  # closed
        assert time.monotonic() - started < HEADER_SECONDS + 5


def test_a_second_request_on_a_connection_has_the_same_time(server: Server) -> None:
    ask = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
    answer = exchange(server, ask + b"\r\n" + ask)
    first, _, second = answer.partition(b'{"status":"ok"}')
    assert first.startswith(b"HTTP/1.1 200")
    assert problem(second) == (408, "receive_timeout")


@pytest.mark.parametrize("length", [b"Content-Length: 100000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_body_that_does_not_end_is_a_408(server: Server, length: bytes) -> None:
    started = time.monotonic()
    with connect(server) as client:
        client.sendall(HEAD + length)
        answer = read_to_the_end(client)
    assert problem(answer) == (408, "receive_timeout")
    assert time.monotonic() - started < RECEIVE_SECONDS + 5


def test_a_body_that_no_route_reads_does_not_hold_its_connection(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 404")
        started = time.monotonic()
        read_to_the_end(client)
        assert time.monotonic() - started < RECEIVE_SECONDS + 10


def test_headers_that_are_too_large_are_a_431(server: Server) -> None:
    assert problem(exchange(server, HEAD + b"X-Large: " + b"x" * 80_000)) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS spoken to a plain port
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
    ],
)
def test_what_is_no_http_is_a_400_and_harms_nobody(server: Server, data: bytes) -> None:
    status, code = problem(exchange(server, data))
    assert (status, code) in {(400, "malformed_request"), (404, "not_found")}
    assert is_well(server)
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/model"])
def test_a_client_that_holds_every_place_shuts_nobody_out(server: Server, path: str) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(MAX_CONNECTIONS)]
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert exchange(server, request.encode()).startswith(b"HTTP/1.1 200")
        assert is_well(server)
        assert read_to_the_end(idle[0]) == b"", "the connection that has waited longest gives its place"


def test_refused_connections_are_counted(server: Server) -> None:
    assert problem(exchange(server, b"nonsense\r\n\r\n"))[0] == 400
    text = httpx2.get(f"{server.url}/metrics").text
    assert 'covidct_requests_total{method="other",route="unmatched",status="400"}' in text


def form_request(headers: str) -> bytes:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + png(200) + b"\r\n--B--\r\n"
    )
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


OFFERS = [
    "Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    "Connection: Upgrade, HTTP2-Settings, close\r\n",
    "Connection: Upgrade, close\r\nUpgrade: TLS/1.2\r\n",
    "upgrade: websocket\r\nConnection: upgrade, close\r\n",
]


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_to_upgrade_is_ignored_and_the_body_kept(server: Server, offer: str, step: int) -> None:
    plain, data = form_request("Connection: close\r\n"), form_request(offer)
    expected = exchange(server, plain).split(b"\r\n", 1)[0]
    with connect(server) as client:
        for at in range(0, 300, step):
            client.sendall(data[at : min(at + step, 300)])
        client.sendall(data[300:])
        assert read_to_the_end(client).split(b"\r\n", 1)[0] == expected


def test_requests_behind_an_offer_on_the_same_connection_are_answered(server: Server) -> None:
    offer = OFFERS[0].replace(", close", "")
    data = form_request(offer) + b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + offer.encode() + b"\r\n"
    answer = exchange(server, data * 2 + form_request(OFFERS[0]))
    assert answer.count(b"HTTP/1.1 200") == 5, answer


def test_a_client_that_closes_its_sending_side_is_answered(server: Server) -> None:
    with connect(server) as client:
        client.sendall(form_request("") * 2)
        client.shutdown(socket.SHUT_WR)
        assert read_to_the_end(client).count(b"HTTP/1.1 200") == 2


def test_a_request_that_ends_early_is_not_answered(server: Server) -> None:
    with connect(server) as client:
        client.sendall(form_request("")[:-1])
        client.shutdown(socket.SHUT_WR)
        assert read_to_the_end(client) == b""


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/model", "/metrics", "/", "/v2", "/openapi.json"])
def test_head_has_the_status_of_get_and_no_body(server: Server, path: str) -> None:
    answers = [
        exchange(server, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        for method in ("GET", "HEAD")
    ]
    assert answers[0].split(b"\r\n", 1)[0] == answers[1].split(b"\r\n", 1)[0]
    assert answers[1].partition(b"\r\n\r\n")[2] == b""


def chunked(body: bytes, trailers: bytes) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n%b" % (len(body), body, trailers)


@pytest.mark.parametrize("line", [b"X-T: " + b"y" * 200_000, b"X-T: y\r\n" * 30_000])
def test_trailers_count_with_the_head(server: Server, line: bytes) -> None:
    assert problem(exchange(server, chunked(FORM, line))) == (431, "headers_too_large")
    assert is_well(server)


def test_trailers_behind_a_body_that_no_route_reads_close_the_connection(server: Server) -> None:
    head, trailers = chunked(FORM, b"").replace(b"/predict", b"/nowhere"), b"X-T: " + b"y" * 200_000
    with connect(server) as client:
        client.sendall(head)
        answer = b""
        while b'"request_id"' not in answer:
            answer += client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 404")
        client.sendall(trailers)
        assert read_to_the_end(client) == b"", "a second answer would belong to the next request"


def test_trailers_are_no_headers(models: Path) -> None:
    key = "user-key-0123456789"
    body = FORM + png() + b"\r\n--xyz--\r\n"
    trailers = f"X-API-Key: {key}\r\nX-Request-ID: from-the-trailer\r\nHost: evil.example\r\n\r\n".encode()
    request = chunked(body, trailers)
    with running(models, api_keys=key) as server:
        assert problem(exchange(server, request))[0] == 401
        request = request.replace(
            b"boundary=xyz\r\n", b"boundary=xyz\r\nConnection: close\r\nX-API-Key: %b\r\n" % key.encode()
        )
        answer = exchange(server, request)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b"from-the-trailer" not in answer


def bundles_answered(server: Server) -> int:
    text = httpx2.get(f"{server.url}/metrics").text
    counts = re.findall(r'requests_total{method="GET",route="/docs/{name}",status="200"} (\d+)', text)
    return int(counts[0]) if counts else 0


def test_a_client_that_never_reads_is_closed_whatever_it_sends_meanwhile(server: Server) -> None:
    """The last request comes when an answer is complete for the application and waits to be read."""
    large = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = Held(server.process.pid).descriptors
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        for count in range(bundles_answered(server) + 1, bundles_answered(server) + 4):
            client.sendall(large)
            with contextlib.suppress(AssertionError):  # it waits for the client to read the one before
                server.until(lambda: bundles_answered(server) == count, seconds=0.5)  # noqa: B023
        server.until(lambda: Held(server.process.pid).descriptors <= before, seconds=30)
    assert is_well(server)


def test_answers_that_nobody_reads_hold_little_memory(server: Server) -> None:
    """60 clients ask for 1.4 MB three times each."""
    large = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    count, before = bundles_answered(server), Held(server.process.pid).resident_kib
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.sendall(large * 3)
        server.until(lambda: bundles_answered(server) >= count + 60)
        assert Held(server.process.pid).resident_kib - before < 30 * 1024


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b" " * 60_000 + b"\0\r\n\r\n",
        chunked(FORM, b"X: " + b"\t" * 60_000 + b"\0\r\n\r\n"),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;" + b" " * 60_000 + b"\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;e=" + b"e" * 60_000 + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 200_000,
    ],
    ids=["header", "trailer", "blank extension", "long extension", "tiny chunks"],
)
def test_what_costs_the_parser_much_time_is_refused_at_once(server: Server, data: bytes) -> None:
    started = time.monotonic()
    assert problem(exchange(server, data)) == (400, "malformed_request")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nabcde",
        b"GET /model HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /model HTTP/1.1\r\n\r\n",
        b"GET /model HTTP/2.0\r\nHost: localhost\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_heads_that_two_servers_may_read_differently_are_a_400(server: Server, data: bytes) -> None:
    assert problem(exchange(server, data)) == (400, "malformed_request")


def test_data_behind_the_last_request_does_not_disturb_it(server: Server) -> None:
    with connect(server) as client:
        client.sendall(form_request("Connection: close\r\n"))
        client.sendall(b"\r\n")
        assert read_to_the_end(client).startswith(b"HTTP/1.1 200")
