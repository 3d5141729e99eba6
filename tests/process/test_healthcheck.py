"""The health check of the images, against sockets and the real service."""

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.processes.server import ROOT, Server, free_port, running

SCRIPT = ROOT / "docker" / "healthcheck.sh"


def check(port: int, **settings: str) -> int:
    """Its exit status; it must print nothing."""
    environment = {"PATH": os.environ["PATH"], "COVIDCT_PORT": str(port)} | settings
    done = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("", "")
    return done.returncode


def answer_once(listener: socket.socket, status: str) -> None:
    client, _ = listener.accept()
    with client:
        received = b""
        while b"\r\n\r\n" not in received:
            received += client.recv(65536)
        client.sendall(f"{status}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("status", "expected"), [("HTTP/1.1 200 OK", 0), ("HTTP/1.1 503 Service Unavailable", 1), ("nonsense", 1)]
)
def test_the_exit_status_is_readiness(status: str, expected: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_once, args=(listener, status))
        thread.start()
        assert check(listener.getsockname()[1]) == expected
        thread.join()


def test_nobody_there_and_nobody_who_answers_are_not_ready() -> None:
    assert check(free_port()) == 1
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert check(silent.getsockname()[1]) == 1


def test_the_real_service_is_ready(server: Server) -> None:
    assert check(server.port) == 0


def test_the_names_that_the_service_accepts_do_not_matter(models: Path) -> None:
    with running(models, allowed_hosts="127.0.0.1, *.example.org") as server:
        assert check(server.port, COVIDCT_ALLOWED_HOSTS="*.example.org") == 0
