"""In-domain pretraining of the convolutions: from weights and chest CT to other weights in the same layout.

Interrupted, it goes on after its last whole epoch. Validation and test slices are never seen: no epoch is chosen.
"""

import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from service.files import write_atomically
from training.checkpoint import restoring
from training.config import Pretraining
from training.data import CovidCt
from training.errors import TrainingError
from training.fitting import claim_run_folder
from training.joint import DomainBatchNorm, Joint
from training.machine import Machine
from training.network import SliceNetwork, load_imagenet
from training.objective import Objective, TensorBatch
from training.other_ct import CtFolders, CtSet, set_of
from training.progress import progress, say
from training.seeding import seed_everything
from training.selfsupervised import SelfSupervised, require_lightly
from training.views import shrink


@dataclass(frozen=True, slots=True)
class PretrainingJob:
    """What to pretrain, on what, and where it goes.

    Attributes:
        weights: that it starts from, in torchvision's layout; None downloads torchvision's own.
        other_ct: folders of CT slices beside COVID-CT's training split.
        run_folder: checkpoints of this run; an interrupted run goes on from them.
        out: the weights file to write.
    """

    settings: Pretraining
    machine: Machine
    weights: Path | None
    other_ct: tuple[Path, ...]
    run_folder: Path
    out: Path


@dataclass(frozen=True, slots=True)
class PretrainingEpoch:
    """One row of the history.

    Attributes:
        loss: of the method, mean over slices.
        accuracy: share of slices that were called rightly; None for a method without labels.
        seconds: wall time.
    """

    epoch: int
    loss: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What became of a job.

    Attributes:
        source: where the starting weights came from.
        count: slices that were learnt from.
        history: one row an epoch.
    """

    source: str
    count: int
    history: list[PretrainingEpoch]


def pretrain(job: PretrainingJob, data: CovidCt) -> Pretrained:
    """Pretrain on COVID-CT's training split and other slices, and write the weights file.

    Raises:
        TrainingError: slices, weights or a library are missing, or the run folder holds another run.
    """
    settings, machine = job.settings, job.machine
    if settings.method != "joint":
        require_lightly(settings.method)  # before the slices are read, which takes a while
    start, source = _read_start(job)
    sets = _read_sets(job, data)
    claim_run_folder(job.run_folder, settings.model_dump(mode="json") | _hashes(sets, start))
    network = SliceNetwork(settings.recipe())
    network.features.load_state_dict(start[: len(network.features)].state_dict())
    network = network.to(memory_format=torch.channels_last).to(machine.device)
    set_trainable(network.features, settings)
    seed_everything(settings.seed, "heads")
    run = PretrainingRun(network.features, _make_objective(network, sets, job), settings, machine, job.run_folder)
    if run.resume():
        say(f"{job.run_folder}: going on after epoch {run.history[-1].epoch}")
    run.run()
    _write(job.out, start, network.features)
    return Pretrained(source, sum(len(each.images) for each in sets), run.history)


def _read_start(job: PretrainingJob) -> tuple[nn.Sequential, str]:
    """All features of the network with the starting weights, and where those came from."""
    recipe = job.settings.recipe().override(layers=())
    whole = SliceNetwork(recipe)
    source = load_imagenet(whole, recipe, job.weights)
    return nn.Sequential(*whole.features), source


def _read_sets(job: PretrainingJob, data: CovidCt) -> list[CtSet]:
    """COVID-CT's training split first, then the folders, without slices of validation and test."""
    side = job.settings.resize
    folders = CtFolders((data.val, data.test), partial(shrink, side=side))
    read = folders.read_labelled if job.settings.method == "joint" else folders.read
    return [set_of(data.train, side), *map(read, job.other_ct)]


def _make_objective(network: SliceNetwork, sets: list[CtSet], job: PretrainingJob) -> Objective:
    if job.settings.method == "joint":
        return Joint(network, sets, job.settings, job.machine)
    images = [image for each in sets for image in each.images]
    return SelfSupervised(network, images, job.settings, job.machine)


def _hashes(sets: list[CtSet], start: nn.Module) -> dict[str, object]:
    """What a run belongs to beside its settings."""
    train, *others = (each.sha256 for each in sets)
    digest = hashlib.sha256()
    for value in start.state_dict().values():
        digest.update(value.numpy().tobytes())
    return {
        "sha256 of train data": train,
        "sha256 of other data": others,
        "sha256 of starting weights": digest.hexdigest(),
    }


def _write(out: Path, start: nn.Sequential, features: nn.Sequential) -> None:
    """Write the starting weights with those of the trained layers in their place, as torchvision names them."""
    for place, layer in enumerate(features):
        # a network that serves COVID-CT normalises with COVID-CT's statistics
        kept = layer.norms[0] if isinstance(layer, DomainBatchNorm) else layer
        start[place].load_state_dict(kept.state_dict())
    state = {f"features.{name}": value for name, value in start.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda path: torch.save(state, path))


def set_trainable(features: nn.Sequential, settings: Pretraining) -> None:
    """Let gradients reach what the settings train, and nothing else."""
    poolings = [place for place, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    first = 0 if settings.trainable == "all" else poolings[2]
    for place, layer in enumerate(features):
        layer.requires_grad_(place >= first)


class PretrainingRun:
    """A pretraining run that lives in a folder and goes on from its last whole epoch.

    `last.pt` holds everything the next epoch needs.
    """

    def __init__(
        self, features: nn.Sequential, objective: Objective, settings: Pretraining, machine: Machine, folder: Path
    ) -> None:
        self._objective = objective
        self._settings = settings
        self._machine = machine
        self._last = folder / "last.pt"
        self._layers = nn.ModuleDict({"features": features, "heads": objective.heads})
        learning = [p for p in self._layers.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(learning, settings.learning_rate, weight_decay=settings.weight_decay)
        self._scaler = machine.scaler()
        self.history: list[PretrainingEpoch] = []

    def resume(self) -> bool:
        """Restore the last whole epoch, if there is one; True if there was.

        Raises:
            TrainingError: the checkpoint can't be read.
        """
        if not self._last.exists():
            return False
        with restoring(self._last):
            state = torch.load(self._last, map_location=self._machine.device, weights_only=True)
            self._layers.load_state_dict(state["layers"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._scaler.load_state_dict(state["scaler"])
            self.history = [PretrainingEpoch(**row) for row in state["history"]]
        return True

    def run(self) -> None:
        """Train to the last epoch."""
        for epoch in range(len(self.history) + 1, self._settings.epochs + 1):
            started = time.perf_counter()
            seed_everything(self._settings.seed, "epoch", epoch)
            for group in self._optimiser.param_groups:
                group["lr"] = learning_rate(self._settings, epoch)
            title = f"epoch {epoch}/{self._settings.epochs}"
            loss, accuracy = self.train_epoch(self._objective.batches(epoch), title)
            self._finish_epoch(PretrainingEpoch(epoch, loss, accuracy, time.perf_counter() - started))

    def train_epoch(self, batches: Iterable[TensorBatch], title: str) -> tuple[float, float | None]:
        """One pass of optimiser steps; the mean loss over the epoch's slices, and the accuracy if there are labels."""
        self._set_training_mode()
        loss_sum = right = count = 0.0
        labelled = False
        bar = progress(batches, title, "batch")
        for batch in bar:
            step = self._objective.step(batch)
            self._optimiser.zero_grad(set_to_none=True)
            self._scaler.scale(step.loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.step(self._optimiser)
            self._scaler.update()
            loss_sum += step.loss.item() * len(batch[0])
            count += len(batch[0])
            if step.right is not None:
                labelled = True
                right += step.right
            bar.set_postfix(loss=f"{loss_sum / count:.3f}")
        if not math.isfinite(loss_sum):
            raise TrainingError(f"{title}: the loss is not finite; lower --learning-rate")
        return loss_sum / count, right / count if labelled else None

    def _set_training_mode(self) -> None:
        """Training mode, with the batch norms that must not move their statistics left in evaluation mode."""
        self._layers.train()
        for layer in self._layers["features"].children():
            learns = any(p.requires_grad for p in layer.parameters())
            if isinstance(layer, nn.BatchNorm2d) and (self._settings.freeze_batch_norm or not learns):
                layer.eval()

    def _finish_epoch(self, record: PretrainingEpoch) -> None:
        self.history.append(record)
        state = {
            "layers": self._layers.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "history": [asdict(row) for row in self.history],
        }
        write_atomically(self._last, lambda path: torch.save(state, path))
        say(describe(record))  # once a kill can no longer undo it


def learning_rate(settings: Pretraining, epoch: int) -> float:
    """Of one epoch, counted from 1: a function of nothing else, so that a resume needs no state of its own."""
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs)) / 2


def describe(record: PretrainingEpoch) -> str:
    """One line for people."""
    accuracy = "" if record.accuracy is None else f", accuracy {record.accuracy:.3f}"
    return f"epoch {record.epoch}: loss {record.loss:.3f}{accuracy}; {record.seconds:.0f} s"
