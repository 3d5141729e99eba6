"""One virtual environment a peer, which finds PyTorch and the service's packages in this one's."""

import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

REQUIREMENTS: Final = {
    "litserve": ["litserve>=0.2.19"],
    "bentoml": ["bentoml>=1.4.39"],
    "ray": ["ray[serve]>=2.60"],
    # its last release, 2024; it imports what it does not require
    "torchserve": [
        "torchserve==0.12.0",
        "torch-model-archiver==0.12.0",
        "packaging",
        "psutil",
        "pyyaml",
        "setuptools<81",
    ],
}
"""Each peer's packages."""


def folder_of(peer: str) -> Path:
    """Where the peer's environment is."""
    return ROOT / ".bench" / peer


def make_environment(peer: str) -> Path:
    """Make the peer's environment if it is not there yet.

    Returns:
        Its folder of programs.

    Raises:
        subprocess.CalledProcessError: its packages can't be installed; pip has said why.
    """
    folder = folder_of(peer)
    done = folder / ".done"
    if not done.exists():
        venv.create(folder, with_pip=False, clear=True)
        paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
        # its own packages come first, so the peer gets the versions that it asks for
        (Path(paths["purelib"]) / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS[peer]], check=True)
        done.touch()
    return folder / "bin"


def version_of(peer: str) -> str:
    """The version that is installed there."""
    script = f"import importlib.metadata as m; print(m.version({peer!r}))"
    program = [str(folder_of(peer) / "bin" / "python"), "-c", script]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout.strip()
