"""SIGHUP to a real process."""

import signal
from pathlib import Path

import httpx2

from tests.support.networks.tiny import tiny_card, write_models
from tests.support.processes.server import running


def test_signals_during_a_reload_ask_for_one_more_so_that_no_change_is_missed(tmp_path: Path) -> None:
    write_models(tmp_path)
    with running(tmp_path) as server:
        for version in ("0.0.2", "0.0.3", "0.0.4"):
            write_models(tmp_path, tiny_card().model_copy(update={"version": version}))
            server.process.send_signal(signal.SIGHUP)
        with httpx2.Client(base_url=server.url) as client:
            server.until(lambda: client.get("/model").json()["card"]["version"] == "0.0.4")
