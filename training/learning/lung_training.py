"""Training of the lung finder: minutes on one core."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from training.learning.lung_pictures import LungBatch, LungPictures
from training.network.lung_finder import LungFinder
from training.run.atomic_write import write_atomically
from training.run.machine import Machine
from training.run.progress import progress
from training.run.run_folder import restoring

_CHECKPOINT_STEPS: Final = 100


@dataclass(frozen=True, slots=True)
class LungTraining:
    """Settings of the lung finder's training.

    Attributes:
        steps: optimiser steps.
        batch_size: pictures a step.
        learning_rate: largest of one cycle.
        machine: device and number format.
        checkpoint: file that a killed run resumes from; None keeps none.
    """

    steps: int
    batch_size: int
    learning_rate: float
    machine: Machine
    checkpoint: Path | None = None


def train_lung_finder(pictures: LungPictures, training: LungTraining) -> LungFinder:
    """Train a lung finder from random weights, or from its checkpoint, and return it in evaluation mode.

    Raises:
        TrainingError: the checkpoint is damaged.
    """
    device = training.machine.device
    finder = LungFinder()
    finder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(finder.parameters(), training.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.learning_rate, training.steps, pct_start=0.15)
    parts = {"finder": finder, "optimiser": optimiser, "schedule": schedule}
    first = _restore(training.checkpoint, parts, pictures)
    bar = progress(range(first, training.steps), "training the lung finder", "step")
    for step in bar:
        batch = LungBatch(*(each.to(device) for each in pictures.batch(training.batch_size)))
        with training.machine.autocast():
            found, kind = finder(batch.pictures)
        loss = _loss(found, kind, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if training.checkpoint and (step + 1) % _CHECKPOINT_STEPS == 0:
            _save(training.checkpoint, parts, pictures, step + 1)
    return finder.eval()


def _save(path: Path, parts: Mapping[str, Any], pictures: LungPictures, step: int) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"step": step, "position": pictures.position()}
    write_atomically(path, lambda file: torch.save(state, file))


def _restore(path: Path | None, parts: Mapping[str, Any], pictures: LungPictures) -> int:
    """Continue from a checkpoint, if there is one; return the number of steps that are done."""
    if path is None or not path.is_file():
        return 0
    with restoring(path):
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        pictures.seek(state["position"])
        return int(state["step"])


def _loss(found: torch.Tensor, kind: torch.Tensor, batch: LungBatch) -> torch.Tensor:
    """Cross-entropy of each cell and of the kind of picture, and overlap of the lungs where there are some."""
    entropy = nn.functional.binary_cross_entropy_with_logits
    lung = nn.functional.avg_pool2d(batch.lung, 2)
    p = found.sigmoid()
    overlap = 1 - (2 * (p * lung).sum((1, 2, 3)) + 12) / ((p + lung).sum((1, 2, 3)) + 12)
    by_picture = entropy(found, lung, reduction="none").mean((1, 2, 3)) + overlap * (1 - batch.kind[:, 0])
    return (by_picture * batch.lung_weight).sum() / batch.lung_weight.sum() + entropy(kind, batch.kind)
