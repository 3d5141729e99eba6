"""The wheel: `pip install covid-ct` brings the client and the command line, and neither PyTorch nor the server."""

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution, distribution, packages_distributions
from pathlib import Path

import numpy as np
import pytest

from tests.support.processes.client import png
from tests.support.processes.server import ROOT, Server

_SITE_PACKAGES = Path(np.__file__).parents[1]

_BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked, with a module that hides every package that it does not require."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "site")
    (metadata,) = (folder / "site").glob("*.dist-info")
    installed = _with_requirements(PathDistribution(metadata).requires or [])
    blocked = {
        name
        for name, owners in packages_distributions().items()
        if not installed & {_normalised(owner) for owner in owners}
    }
    assert {"torch", "fastapi", "uvicorn"} <= blocked
    (folder / "site" / "only_what_it_requires.py").write_text(_BLOCK.format(blocked=blocked - {"covid_ct", "service"}))
    return folder / "site"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _with_requirements(requirements: list[str]) -> set[str]:
    """Names of the distributions that pip would install, without extras."""
    names: set[str] = set()
    waiting = [line for line in requirements if "extra ==" not in line]
    while waiting:
        match = re.match(r"[A-Za-z0-9_.-]+", waiting.pop())
        assert match is not None
        name = _normalised(match[0])
        if name not in names and _is_installed(name):
            names.add(name)
            waiting += [line for line in distribution(name).requires or [] if "extra ==" not in line]
    return names


def _is_installed(name: str) -> bool:
    """Whether a package is here: requirements of other systems are not."""
    return any(_normalised(owner) == name for owners in packages_distributions().values() for owner in owners)


def run(wheel: Path, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a script with the wheel and what it requires; -S: without this clone's own path."""
    script = f"import only_what_it_requires, sys\n{script}"
    environment = os.environ | {"PYTHONPATH": f"{wheel}{os.pathsep}{_SITE_PACKAGES}"}
    command = [sys.executable, "-S", "-c", script, *arguments]
    return subprocess.run(command, cwd=wheel, env=environment, capture_output=True, text=True, check=False)


_MAIN = "from covid_ct.__main__ import main; sys.exit(main())"


def test_it_has_the_client_and_the_part_of_the_service_that_it_uses(wheel: Path) -> None:
    packages = {path.name for path in wheel.iterdir() if path.is_dir() and path.suffix != ".dist-info"}
    assert packages == {"covid_ct", "service"}


def test_the_client_and_the_command_ask_a_service_without_torch(wheel: Path, server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(200))
    script = "import covid_ct; print(covid_ct.__file__, covid_ct.Client(sys.argv[1]).predict(sys.argv[2]).label)"
    done = run(wheel, script, server.url, str(tmp_path / "a.png"))
    assert (done.stdout, done.stderr) == (f"{wheel}/covid_ct/__init__.py COVID\n", "")
    done = run(wheel, _MAIN, "predict", str(tmp_path / "a.png"), "--url", server.url, "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert "COVID" in done.stdout.splitlines()[1]


@pytest.mark.parametrize("command", [["predict", "a.png"], ["model", "show"]])
def test_a_model_here_needs_torch_and_the_command_says_what_to_install(
    wheel: Path, models: Path, tmp_path: Path, command: list[str]
) -> None:
    done = run(wheel, _MAIN, *command, "--models", str(models))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install '.[model]'" in done.stderr
