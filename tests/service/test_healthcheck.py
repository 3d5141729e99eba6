import socket
import threading

import pytest

from service.healthcheck import main


def answer_once(listener: socket.socket, status: str) -> None:
    client, _ = listener.accept()
    with client:
        client.recv(65536)
        client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.mark.parametrize(("status", "expected"), [("200 OK", 0), ("503 Service Unavailable", 1), ("nonsense", 1)])
def test_the_exit_status_is_readiness(monkeypatch: pytest.MonkeyPatch, status: str, expected: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("COVIDCT_PORT", str(listener.getsockname()[1]))
        thread = threading.Thread(target=answer_once, args=(listener, status))
        thread.start()
        assert main() == expected
        thread.join()


def test_nobody_there_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("COVIDCT_PORT", str(free.getsockname()[1]))
        assert main() == 1
