"""Records of runs as JSON: their base class, the origin of a result, and one epoch."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pydantic
import torch
import torchvision
from pydantic import BaseModel, ConfigDict, JsonValue

import service
from service.model.card import SplitFingerprint
from training.run.atomic_write import write_atomically


class Record(BaseModel):
    """Base of all records: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def write(self, path: Path) -> None:
        """Write the record as a JSON file."""
        text = self.model_dump_json(indent=2) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text))


class Provenance(Record):
    """Everything that a result was made from.

    Attributes:
        config: the recipe.
        data: fingerprint of each split by its name.
        git_commit: of the code, as in `git_commit`.
        versions: of libraries that figures may depend on.
        machine: device, number format and loading processes.
    """

    config: dict[str, JsonValue]
    data: dict[str, SplitFingerprint]
    git_commit: str
    versions: dict[str, str]
    machine: str


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


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that figures may depend on."""
    return {"torch": str(torch.__version__), "torchvision": torchvision.__version__, "pydantic": pydantic.VERSION}


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
