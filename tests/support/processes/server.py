"""The real service as a process, for the tests that need one."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import httpx2

ROOT = Path(__file__).parents[3]
START_SECONDS = 120
"""A deadline, not an expectation: importing torch and warming VGG-19 up on a busy machine takes a while."""


def environment(models: Path, **settings: object) -> dict[str, str]:
    """This process's environment with the settings of the test and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COVIDCT_")}
    wanted = {"models_dir": models, "device": "cpu", "threads": 1, "port": 0, **settings}
    return clean | {f"COVIDCT_{name.upper()}": str(value) for name, value in wanted.items()}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Server:
    """A running service."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, log: IO[str]) -> None:
        self.process = process
        self.log = log
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Signal it, and wait: its exit status, and what it wrote."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Wait for its end: its exit status, and what it wrote."""
        self.process.wait(60)
        return self.process.returncode, self.output()

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `condition` is true of the running service."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, "it did not become true in time"
            time.sleep(0.02)

    def output(self) -> str:
        """Return its output so far."""
        self.log.seek(0)
        return self.log.read()


@contextlib.contextmanager
def running(models: Path, *, under: Sequence[str] = (), **settings: object) -> Iterator[Server]:
    """A service that is ready, perhaps `under` another command; killed at the end if the test has not stopped it."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as log:  # a file, because a pipe that nobody reads fills up and stops the service
        process = subprocess.Popen(
            [*under, sys.executable, "-m", "service"],
            env=environment(models, port=port, **settings),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        server = Server(process, port, log)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx2.Client() as client:  # a new one for each question would take as much time as the start itself
        while time.monotonic() < deadline:
            if server.process.poll() is not None:
                raise AssertionError(f"the service ended: {server.output()}")
            with contextlib.suppress(httpx2.TransportError):
                if client.get(f"{server.url}/health/ready").status_code == 200:
                    return
            time.sleep(0.05)
    raise AssertionError("the service was not ready in time")
