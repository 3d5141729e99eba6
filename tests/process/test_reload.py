"""SIGHUP to a real process."""

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
