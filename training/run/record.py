"""Records of runs as JSON: their base class, the origin of a result, and one epoch."""

import hashlib
import inspect
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, JsonValue
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

import service
from service.model.card import SplitFingerprint
from training.run.atomic_write import write_text


class Record(BaseModel):
    """Base of all records: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe each field in the JSON Schema as the docstring of its class does."""
        schema = handler.resolve_ref_schema(handler(core))
        lines = [text for kind in reversed(cls.__mro__) if issubclass(kind, Record) for text in _attributes(kind)]
        for names, text in lines:
            for name in names.split(", "):
                if name in schema.get("properties", {}):
                    schema["properties"][name].setdefault("description", text)
        return schema

    def write(self, path: Path) -> None:
        """Write the record as a JSON file."""
        text = self.model_dump_json(indent=2) + "\n"
        write_text(path, text)


def _attributes(kind: type) -> list[tuple[str, str]]:
    """Read the section Attributes of a docstring: names and text of each entry."""
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    ([a-z_, ]+): (.+(?:\n        .+)*)", section, flags=re.MULTILINE)
    return [(names, " ".join(text.split())) for names, text in entries]


class Provenance(Record):
    """Recipe, data, code, libraries and machine of a result.

    Attributes:
        config: the recipe.
        data: fingerprint of each split by its name.
        git_commit: of the code, as in `git_commit`.
        versions: of Python and the libraries that figures may depend on.
        machine: device, number format and loading processes.
        inputs: SHA-256 of each file other than slices, such as weights and tables, and of slices with labels and masks.
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
"""Libraries that compute a figure or decode a slice."""


_FIELDS: Final = {
    "accuracy": "share of slices with the right label",
    "accuracy_change": "accuracy less that of the unaltered slices",
    "architecture": "of the network",
    "auc": "area under the ROC curve, COVID positive",
    "auc_change": "AUC less that of the unaltered slices",
    "bytes": "size of the file",
    "confusion_matrix": "numbers of slices at the threshold",
    "count": "number of slices, or of patients in scores by patient",
    "epoch": "0 is the network before fine-tuning",
    "false_negatives": "COVID slices that are called NonCOVID",
    "false_positive_rate": "1 - specificity at each threshold",
    "false_positives": "NonCOVID slices that are called COVID",
    "figures": "scores by name, each with its interval",
    "formats": "test slices by format and colour mode of the file",
    "header_rule": "a rule that reads only the file format",
    "high": "upper bound of the 95 % interval",
    "low": "lower bound of the 95 % interval",
    "mean_lesion_probability": "mean probability of a lesion",
    "mean_probability": "mean probability of COVID",
    "model": "name, version and origin of the model",
    "name": "of the model, or of the file",
    "negatives": "number of NonCOVID slices",
    "offset": "added to the log odds",
    "peak_memory_bytes": "largest resident memory of the last process",
    "positive_label": "class of the returned probability",
    "positives": "number of COVID slices, or patients",
    "precision": "number format of the file",
    "rates": "sensitivity and specificity at that threshold",
    "reasons": "share by check",
    "refused": "share that any check refuses",
    "roc": "points of the ROC curve",
    "rule": "how the values were chosen",
    "schema_version": "of this file",
    "seconds": "wall time of training and validation",
    "sensitivity": "share of COVID slices that are called COVID",
    "sha256": "hash, hexadecimal",
    "slope": "multiplies the log odds",
    "specificity": "share of NonCOVID slices that are called NonCOVID",
    "threshold": "at or above it a slice is called COVID",
    "train_accuracy": "share of training slices with the right label",
    "train_loss": "cross-entropy in nats, mean over training slices",
    "true_negatives": "NonCOVID slices that are called NonCOVID",
    "true_positive_rate": "sensitivity at each threshold",
    "true_positives": "COVID slices that are called COVID",
    "val_accuracy": "share of validation slices with the right label",
    "val_auc": "AUC on validation",
    "val_loss": "cross-entropy in nats, mean over validation slices",
    "value": "the figure itself",
    "variants": "scores on the altered test split, by alteration",
    "version": "of the model",
    "weights": "source of the pretrained weights",
}
"""Descriptions of fields that mean the same in every record."""


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
        command=shlex.join(("python", "-m", "training", *sys.argv[1:])),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=processor_name(),
        json_schema=SCHEMA_NAME,
    )


def write_schema(kind: type[Record], folder: Path) -> None:
    """Write the JSON Schema of a record into its folder."""
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **kind.model_json_schema()}
    for described in (schema, *schema.get("$defs", {}).values()):
        for name, field in described.get("properties", {}).items():
            if name in _FIELDS:
                field.setdefault("description", _FIELDS[name])
    text = json.dumps(schema, indent=2) + "\n"
    write_text(folder / SCHEMA_NAME, text)


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
