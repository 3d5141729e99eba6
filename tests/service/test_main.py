"""Errors that end `python -m service` before it serves; tests/process has the same for real processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.__main__ import _bind, main
from service.model.card import MANIFEST_NAME
from service.settings import Settings
from tests.support.networks.tiny import tiny_card, write_models
from tests.support.processes.server import ROOT, environment

ErrorOf = Callable[..., str]

NEEDS_NO_TORCH = """
import sys
from service.__main__ import main
sys.exit(2 if main([]) != 1 or "torch" in sys.modules else 0)
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither settings nor the logging of this process are those of a service."""
    for name in [name for name in os.environ if name.startswith("COVIDCT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("service.__main__.configure_logging", lambda _: None)


@pytest.fixture
def error_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ErrorOf:
    """Start a service that must refuse to serve, and return its one line on stderr."""

    def run(models: Path, **settings: object) -> str:
        for name, value in environment(models, **settings).items():
            if name.startswith("COVIDCT_"):
                monkeypatch.setenv(name, value)
        assert main([]) == 1
        written = capsys.readouterr()
        assert written.out == ""
        assert written.err.count("\n") == 1, written.err
        return written.err

    return run


def test_no_model_is_one_line_that_names_the_manifest(error_of: ErrorOf, tmp_path: Path) -> None:
    assert MANIFEST_NAME in error_of(tmp_path / "nothing")


def test_a_model_that_fails_its_self_check_is_one_line(error_of: ErrorOf, tmp_path: Path) -> None:
    write_models(tmp_path, tiny_card(probability=0.99))
    assert "self-check" in error_of(tmp_path)


def test_a_port_that_is_taken_is_one_line_that_names_it(error_of: ErrorOf, models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in error_of(models, port=port)


@pytest.mark.parametrize("settings", [{"port": "seventy"}, {"api_keys": "short"}])
def test_errors_of_settings_and_keys_need_no_torch(models: Path, settings: dict[str, object]) -> None:
    """Importing torch takes seconds, and loading the model too: what can be told before is told before."""
    command = [sys.executable, "-c", NEEDS_NO_TORCH]
    done = subprocess.run(command, cwd=ROOT, env=environment(models, **settings), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_a_client_does_not_read_takes_little_memory_of_the_kernel() -> None:
    with _bind(Settings(port=0)) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 512 * 1024
