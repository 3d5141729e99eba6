"""The OpenAPI document held to the running service, both ways, by schemathesis."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.networks.tiny import write_models
from tests.support.processes.server import ROOT, Server, running

KEY = "user-key-0123456789"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_models(models)
    with running(models, api_keys=KEY, log_level="WARNING") as server:
        yield server


@pytest.mark.parametrize(
    ("headers", "examples"), [([], 5), (["--header", f"X-API-Key: {KEY}"], 20)], ids=["stranger", "user"]
)
def test_every_answer_is_one_that_the_document_promises(
    server: Server, headers: list[str], examples: int, tmp_path: Path
) -> None:
    settings = ["--checks", "all", "--max-examples", str(examples), "--seed", "1", "--no-color"]
    config = str(ROOT / "tests" / "process" / "schemathesis.toml")
    done = subprocess.run(
        [str(SCHEMATHESIS), "--config-file", config, "run", f"{server.url}/openapi.json", *settings, *headers],
        cwd=tmp_path,  # it keeps what it found there
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No test cases" not in done.stdout
