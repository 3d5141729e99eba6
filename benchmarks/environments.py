"""One virtual environment for each peer, which takes PyTorch and the service's packages from this environment."""

import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

REQUIREMENTS: Final = {
    "litserve": ["litserve>=0.2.19"],
    "mlserver": ["mlserver>=1.7"],
    "bentoml": ["bentoml>=1.4.39"],
    "ray": ["ray[serve]>=2.60"],
}
"""Each peer's packages."""


def folder_of(peer: str) -> Path:
    """Folder of the peer's environment."""
    return ROOT / ".bench" / peer


def make_environment(peer: str) -> Path:
    """Create the peer's environment if it does not exist.

    Returns:
        The folder of its programs.

    Raises:
        subprocess.CalledProcessError: a package could not be installed; pip has printed the reason.
    """
    folder = folder_of(peer)
    done = folder / ".done"
    if not done.exists():
        venv.create(folder, with_pip=False, clear=True)
        paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
        # the peer's own packages come first, so it gets the versions that it requires
        (Path(paths["purelib"]) / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS[peer]], check=True)
        done.touch()
    return folder / "bin"


def version_of(peer: str) -> str:
    """Version installed in the peer's environment."""
    script = f"import importlib.metadata as m; print(m.version({peer!r}))"
    program = [str(folder_of(peer) / "bin" / "python"), "-c", script]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout.strip()
