"""Records of runs as JSON: their base class, the origin of a result, and one epoch."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue

import service
from service.model.card import SplitFingerprint
from training.errors import TrainingError
from training.run.atomic_write import write_text


class Record(BaseModel):
    """Base of all records: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def write(self, path: Path) -> None:
        """Write the record as a JSON file."""
        text = self.model_dump_json(indent=2) + "\n"
        write_text(path, text)


class Provenance(Record):
    """Everything that a result was made from.

    Attributes:
        config: the recipe.
        data: fingerprint of each split by its name.
        git_commit: of the code, as in `git_commit`.
        versions: of Python and the libraries that figures may depend on.
        machine: device, number format and loading processes.
        inputs: SHA-256 of each file that is no slice, such as weights and tables, and of everything known of slices.
        command: the command line.
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


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One row of the history. Epoch 0 is the network before fine-tuning and has no training figures.

    Attributes:
        train_loss, val_loss: cross-entropy in nats, mean over slices.
        train_accuracy, val_accuracy: share of slices whose larger logit is the right one.
        val_auc: area under the ROC curve, COVID positive.
        seconds: wall time of training and validation.
    """

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float
    val_accuracy: float
    val_auc: float
    seconds: float

    def __str__(self) -> str:
        train = ""
        if self.train_loss is not None:
            train = f"train loss {self.train_loss:.3f}, accuracy {self.train_accuracy:.3f}; "
        return (
            f"epoch {self.epoch}: {train}val loss {self.val_loss:.3f}, accuracy {self.val_accuracy:.3f}, "
            f"AUC {self.val_auc:.3f}; {self.seconds:.0f} s"
        )


SCHEMA_NAME: Final = "metrics.schema.json"

_LIBRARIES: Final = (
    "torch", "torchvision", "numpy", "scipy", "scikit-learn", "opencv-python-headless", "pillow", "imagecodecs",
    "pydicom", "pydantic",
)  # fmt: skip
"""Everything that computes a figure or decodes a slice."""


def make_provenance(
    config: Mapping[str, JsonValue], data: Mapping[str, SplitFingerprint], inputs: Mapping[str, str], machine: str
) -> Provenance:
    """Describe what a result is made from, now, with this code on this machine."""
    return Provenance(
        config=dict(config),
        data=dict(data),
        git_commit=git_commit(),
        versions=library_versions(),
        machine=machine,
        inputs=dict(inputs),
        command=shlex.join(("python", "-m", "training", *sys.argv[1:])),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=processor_name(),
        json_schema=SCHEMA_NAME,
    )


def write_schema(kind: type[Record], folder: Path) -> None:
    """Write the JSON Schema of a record into its folder."""
    text = json.dumps(kind.model_json_schema(), indent=2) + "\n"
    write_text(folder / SCHEMA_NAME, text)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        TrainingError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TrainingError(f"{path}: can't read the file: {error.strerror}") from error


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
