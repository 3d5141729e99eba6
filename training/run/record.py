"""Records of runs as JSON: their base class, one epoch, and the code that ran."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pydantic
import torch
import torchvision
from pydantic import BaseModel, ConfigDict

import service


class Record(BaseModel):
    """Immutable, and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One row of the history; epoch 0 is the network before fine-tuning, and has no training figures.

    Of a network that was fitted to validation too, the `val` figures are of out-of-fold answers.

    Attributes:
        train_loss, val_loss: cross-entropy in nats, mean over slices.
        train_accuracy, val_accuracy: share of slices whose larger logit is the right one.
        val_auc: area under the ROC curve, COVID positive.
        seconds: wall time, training and validation together.
    """

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float
    val_accuracy: float
    val_auc: float
    seconds: float


def library_versions() -> dict[str, str]:
    """What the figures may depend on."""
    return {"torch": str(torch.__version__), "torchvision": torchvision.__version__, "pydantic": pydantic.VERSION}


def git_commit() -> str:
    """The commit of the code that runs, `-dirty` where files differ from it.

    Outside a checkout, as in a container, what SOURCE_REVISION says, else `unknown`.
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
