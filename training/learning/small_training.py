"""Training of the two small networks, the lung finder and the view checker: minutes on one core."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import torch
from torch import nn

from training.learning.lung_pictures import LungBatch, LungPictures
from training.learning.view_pictures import ViewBatch, ViewPictures
from training.network.lung_finder import LungFinder
from training.network.view_checker import ViewChecker
from training.run.atomic_write import write_atomically
from training.run.loss_table import append_losses, has_row, losses_path, training_seconds
from training.run.machine import Machine
from training.run.progress import progress
from training.run.stages import restoring

NetworkT = TypeVar("NetworkT", bound=nn.Module)

_CHECKPOINT_STEPS: Final = 100


@dataclass(frozen=True, slots=True)
class SmallTraining:
    """Settings of the training of a small network.

    Attributes:
        batch_size: pictures a step.
        learning_rate: largest of one cycle.
        checkpoint: file from which a killed run resumes.
    """

    steps: int
    batch_size: int
    learning_rate: float
    machine: Machine
    checkpoint: Path


class _Pictures(Protocol):
    """Draws batches from a random generator, whose position a checkpoint keeps."""

    def batch(self, size: int) -> Any: ...

    def position(self) -> Mapping[str, Any]: ...

    def seek(self, position: Mapping[str, Any]) -> None: ...


def train_lung_finder(pictures: LungPictures, training: SmallTraining) -> LungFinder:
    """Train a lung finder from random weights, or from its checkpoint, and return it in evaluation mode."""
    return _train(LungFinder(), pictures, _finder_loss, training, "training the lung finder")


def train_view_checker(pictures: ViewPictures, training: SmallTraining) -> ViewChecker:
    """Train a view checker; otherwise as `train_lung_finder`."""
    return _train(ViewChecker(), pictures, _view_loss, training, "training the view checker")


def _train(
    network: NetworkT,
    pictures: _Pictures,
    loss_of: Callable[[Any, Any], torch.Tensor],
    training: SmallTraining,
    title: str,
) -> NetworkT:
    device = training.machine.device
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), training.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.learning_rate, training.steps, pct_start=0.15)
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    first = _restore(training.checkpoint, parts, pictures)
    table = losses_path(training.checkpoint)
    started = time.perf_counter() - training_seconds(table, first)  # of this process, minus the time of earlier ones
    bar = progress(range(first, training.steps), title, "step")
    for step in bar:
        drawn = pictures.batch(training.batch_size)
        batch = type(drawn)(*(tensor.to(device) for tensor in drawn))
        with training.machine.autocast():
            outputs = network(batch.pictures)
        loss = loss_of(outputs, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if has_row(step + 1, training.steps):
            seconds = round(time.perf_counter() - started, 2)
            append_losses(table, {"step": step + 1, "loss": loss.item(), "seconds": seconds})
        if (step + 1) % _CHECKPOINT_STEPS == 0:
            _save(training.checkpoint, parts, pictures, step + 1)
    return network.eval()


def _save(path: Path, parts: Mapping[str, Any], pictures: _Pictures, step: int) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"step": step, "position": pictures.position()}
    write_atomically(path, lambda file: torch.save(state, file))


def _restore(path: Path, parts: Mapping[str, Any], pictures: _Pictures) -> int:
    """Continue from a checkpoint, if there is one; return the number of finished steps."""
    if not path.is_file():
        return 0
    with restoring(path):
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        pictures.seek(state["position"])
        return int(state["step"])


def _finder_loss(outputs: tuple[torch.Tensor, torch.Tensor], batch: LungBatch) -> torch.Tensor:
    """Cross-entropy of each cell and of the kind of picture, and overlap of the lungs where there are some."""
    cells, kind = outputs
    entropy = nn.functional.binary_cross_entropy_with_logits
    lung = nn.functional.avg_pool2d(batch.lung, 2)
    p = cells.sigmoid()
    overlap = 1 - (2 * (p * lung).sum((1, 2, 3)) + 12) / ((p + lung).sum((1, 2, 3)) + 12)
    by_picture = entropy(cells, lung, reduction="none").mean((1, 2, 3)) + overlap * (1 - batch.kind[:, 0])
    with_masks = batch.lung_weight.sum().clamp_min(1.0)  # a small batch can hold contact sheets alone
    return (by_picture * batch.lung_weight).sum() / with_masks + entropy(kind, batch.kind)


def _view_loss(outputs: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs, batch.views)
