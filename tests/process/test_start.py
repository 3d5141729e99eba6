"""Signals to a real process before it serves."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import pytest

from tests.support.networks.tiny import write_models
from tests.support.processes.server import ROOT, START_SECONDS, environment, free_port

AS_PROCESS_1 = ["unshare", "--pid", "--fork", "--kill-child"]


@contextlib.contextmanager
def starting(models: Path, port: int, under: Sequence[str] = ()) -> Iterator["subprocess.Popen[bytes]"]:
    """A service from its first moment on."""
    command = [*under, sys.executable, "-m", "service"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(models, port=port)) as process:
        try:
            yield process
        finally:
            process.kill()


def until_it_handles(pid: int, number: int) -> None:
    """Wait until the process handles the signal, which must be before it has loaded torch."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
            if caught & (1 << (number - 1)):
                assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
                return
        time.sleep(0.005)
    raise AssertionError("it never handled the signal")


def is_ready(port: int) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    return False


def may_unshare() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*AS_PROCESS_1, "true"]).returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_at_once(models: Path, number: int) -> None:
    port = free_port()
    with starting(models, port) as process:
        until_it_handles(process.pid, signal.SIGTERM)
        process.send_signal(number)
        assert process.wait(20) == 0
        assert not is_ready(port)


@pytest.mark.skipif(not may_unshare(), reason="needs the right to make a namespace of processes")
def test_sigterm_ends_the_start_of_process_1_too(models: Path) -> None:
    """The kernel drops signals for process 1 that it does not handle: it would become ready and stay until SIGKILL."""
    with starting(models, free_port(), AS_PROCESS_1) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        while not (pids := children.read_text().split()):
            time.sleep(0.005)
        until_it_handles(int(pids[0]), signal.SIGTERM)
        subprocess.run(["kill", "-TERM", pids[0]], check=True)
        assert outer.wait(20) == 0


def test_sighup_during_the_start_is_a_reload_once_it_serves(tmp_path: Path) -> None:
    write_models(tmp_path)
    port = free_port()
    with starting(tmp_path, port) as process:
        until_it_handles(process.pid, signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        while not is_ready(port):
            assert process.poll() is None
            time.sleep(0.05)
        deadline = time.monotonic() + START_SECONDS
        while 'outcome="success",part="model"} 1.0' not in httpx2.get(f"http://127.0.0.1:{port}/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
