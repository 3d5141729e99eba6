"""SIGHUP to a real process."""

import os
import re
import signal
import subprocess
from pathlib import Path

import httpx2

from tests.support.networks.tiny import tiny_card, write_models
from tests.support.processes.server import ROOT, running


def test_signals_during_a_reload_ask_for_one_more_so_that_no_change_is_missed(tmp_path: Path) -> None:
    write_models(tmp_path)
    with running(tmp_path) as server:
        for version in ("0.0.2", "0.0.3", "0.0.4"):
            write_models(tmp_path, tiny_card().model_copy(update={"version": version}))
            server.process.send_signal(signal.SIGHUP)
        with httpx2.Client(base_url=server.url) as client:
            server.until(lambda: client.get("/model").json()["card"]["version"] == "0.0.4")


def test_a_key_is_revoked_and_the_service_ends_while_the_manifest_is_a_pipe(tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    keys = tmp_path / "keys"
    keys.write_text("first-key-0123456789\n")
    with running(tmp_path / "models", api_keys_file=keys) as server:

        def status(key: str) -> int:
            return httpx2.post(f"{server.url}/predict", headers={"X-API-Key": key}).status_code

        (tmp_path / "models/metrics.json").unlink()
        os.mkfifo(tmp_path / "models/metrics.json")
        for key in ("second-key-0123456789", "third-key-0123456789"):
            keys.write_text(f"{key}\n")
            server.process.send_signal(signal.SIGHUP)
            server.until(lambda: status(key) == 415)  # noqa: B023
        assert status("first-key-0123456789") == 401
        ended, output = server.stop()
    assert ended == 0
    assert "not a regular file" in output


def test_a_model_is_exchanged_and_exchanged_back_with_the_lines_of_operating_md(
    tmp_path: Path,
) -> None:
    """As in a fresh clone, where `models` is a folder, not a link."""
    text = (ROOT / "docs" / "operating.md").read_text()
    (begin,) = re.findall(r"^ln -s models current$", text, re.MULTILINE)
    there, back = re.findall(r"ln -sfn \S+ current\.new && mv -T current\.new current", text)
    (reload,) = re.findall(r"^kill -HUP .*service\.pid.*$", text, re.MULTILINE)
    write_models(tmp_path / "models")
    write_models(tmp_path / "runs/lesion/model", tiny_card().model_copy(update={"version": "0.0.2"}))
    subprocess.run(["sh", "-ec", begin], cwd=tmp_path, check=True)
    assert (tmp_path / "models").is_dir()
    with running(tmp_path / "current") as server:
        (tmp_path / "service.pid").write_text(str(server.process.pid))
        for line, version in ((there, "0.0.2"), (back, "0.0.1")):
            subprocess.run(["sh", "-ec", f"{line}; {reload}"], cwd=tmp_path, check=True)
            server.until(lambda: httpx2.get(f"{server.url}/model").json()["card"]["version"] == version)  # noqa: B023
        assert 'outcome="failure",part="model"} 0.0' in httpx2.get(f"{server.url}/metrics").text
