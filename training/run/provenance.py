"""Origin of a result: recipe, data, code, libraries and machine."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch
from pydantic import Field, JsonValue

import service
from service.model.card import SplitFingerprint
from training.run.record import SCHEMA_NAME, Record

_LIBRARIES: Final = (
    "torch", "torchvision", "numpy", "scipy", "scikit-learn", "opencv-python-headless", "pillow", "imagecodecs",
    "pydicom", "pydantic",
)  # fmt: skip
"""Libraries that compute a figure or decode a slice."""


class Provenance(Record):
    """Recipe, data, code, libraries and machine of a result.

    Attributes:
        config: the recipe.
        data: fingerprint of each split by its name.
        git_commit: of the code, as in `git_commit`.
        versions: of Python and the libraries that figures may depend on.
        machine: device, number format and loading processes.
        inputs: SHA-256 of each file other than slices, such as weights and tables, and of slices with labels and masks.
        command: the command line; of an absolute path the last part.
        date: when the record was made, UTC, ISO 8601.
        processor: of the machine.
        json_schema: file next to this record with its JSON Schema.
    """

    config: dict[str, JsonValue]
    data: dict[str, SplitFingerprint]
    git_commit: str
    versions: dict[str, str]
    machine: str
    inputs: dict[str, str] = Field(default_factory=dict)
    command: str | None = None
    date: str | None = None
    processor: str | None = None
    json_schema: str | None = None


def make_provenance(
    config: Mapping[str, JsonValue], data: Mapping[str, SplitFingerprint], inputs: Mapping[str, str], machine: str
) -> Provenance:
    """Record recipe, data, code, libraries and machine of a result."""
    return Provenance(
        config=dict(config),
        data=dict(data),
        git_commit=git_commit(),
        versions=library_versions(),
        machine=machine,
        inputs=dict(inputs),
        command=shlex.join(("python", "-m", "training", *map(without_folders, sys.argv[1:]))),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=processor_name(),
        json_schema=SCHEMA_NAME,
    )


def without_folders(argument: str) -> str:
    """Shorten an absolute path, also behind `=`, to its last part: folders of this machine mean nothing elsewhere."""
    return re.sub(r"(^|=)/.*/(?=[^/])", r"\1", argument)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of Python and the libraries that figures may depend on."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in _LIBRARIES[1:]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # installed under another name, such as opencv-python
            versions[name] = "unknown"
    return versions


def processor_name() -> str:
    """Return the name of the processor, as Linux or else the platform gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit() -> str:
    """Return the commit of the running code, with the suffix `-dirty` if files differ from it.

    Outside a checkout, as in a container: the value of SOURCE_REVISION, else `unknown`.
    """
    folder = Path(service.__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", ".", "../training")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("SOURCE_REVISION", "unknown")
