"""Fine-tuning: one epoch, one evaluation pass, early stopping, a checkpoint every epoch, resume."""

import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchmetrics.functional.classification import binary_auroc

from training.data.batches import Batch, plain_batches, training_batches
from training.data.covid_ct import CovidCt, Split
from training.errors import TrainingError
from training.network.freezing import set_trainable, set_training_mode
from training.network.slice_network import SliceNetwork
from training.recipe import Recipe
from training.run.atomic_write import write_atomically
from training.run.machine import Machine
from training.run.progress import progress, say
from training.run.record import EpochRecord
from training.run.run_folder import restoring
from training.run.seeding import seed_everything


class EarlyStopping:
    """Says when neither running average, of validation loss nor of accuracy, has got better for `patience` epochs."""

    def __init__(self, patience: int, running_average: float) -> None:
        self._patience = patience
        self._past = running_average
        self._loss: float | None = None
        self._accuracy = 0.0
        self._best_loss = float("inf")
        self._best_accuracy = float("-inf")
        self._epochs_without = 0

    def update(self, loss: float, accuracy: float) -> bool:
        """Take one epoch's figures; True means stop."""
        if self._loss is None:
            self._loss, self._accuracy = loss, accuracy
        else:
            self._loss = self._past * self._loss + (1 - self._past) * loss
            self._accuracy = self._past * self._accuracy + (1 - self._past) * accuracy
        better = self._loss < self._best_loss or self._accuracy > self._best_accuracy
        self._best_loss = min(self._best_loss, self._loss)
        self._best_accuracy = max(self._best_accuracy, self._accuracy)
        self._epochs_without = 0 if better else self._epochs_without + 1
        return self._epochs_without >= self._patience


class FineTuning:
    """A fine-tuning run that lives in a folder and goes on from its last whole epoch.

    `last.pt` holds everything the next epoch needs, `best.pt` the weights of the best epoch so far.

    Attributes:
        history: one row an epoch, epoch 0 first.
        val_logits: the validation slices' logits after each of them: float32 (N, 2), on the CPU.
    """

    def __init__(self, network: SliceNetwork, recipe: Recipe, machine: Machine, folder: Path) -> None:
        self._network = network
        self._recipe = recipe
        self._machine = machine
        self._last, self._best = folder / "last.pt", folder / "best.pt"
        self._optimiser = make_optimiser(network, recipe)
        self._scaler = machine.scaler()
        self.history: list[EpochRecord] = []
        self.val_logits: list[torch.Tensor] = []

    def resume(self) -> bool:
        """Restore the last whole epoch, if there is one; True if there was.

        Raises:
            TrainingError: the checkpoint can't be read.
        """
        if not self._last.exists():
            return False
        with restoring(self._last):
            state = torch.load(self._last, map_location=self._machine.device, weights_only=True)
            self._network.load_state_dict(state["network"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._scaler.load_state_dict(state["scaler"])
            self.history = [EpochRecord(**row) for row in state["history"]]
            self.val_logits = [logits.cpu() for logits in state["val_logits"]]
        return True

    def begin_with(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Take the figures before fine-tuning from float32 (N, 2) out-of-fold logits, and not from validation.

        For a network that has seen validation. A resumed run has them.
        """
        if not self.history:
            self._finish_epoch(figures_before(logits, labels, seconds=0.0), logits)

    def run(self, data: CovidCt) -> None:
        """Train to the last epoch or the early stop; the network ends with the weights of the best epoch."""
        if not self.history:
            self._finish_epoch(*evaluate_epoch(self._network, data.val, self._recipe, self._machine))
        while not self._is_over():
            epoch = len(self.history)
            started = time.perf_counter()
            seed_everything(self._recipe.seed, "epoch", epoch)
            batches = training_batches(data.train, self._recipe, epoch, workers=self._machine.workers)
            loss, accuracy = self.train_epoch(batches, f"epoch {epoch}/{self._recipe.epochs}")
            record, logits = evaluate_epoch(self._network, data.val, self._recipe, self._machine)
            seconds = time.perf_counter() - started
            record = replace(record, epoch=epoch, train_loss=loss, train_accuracy=accuracy, seconds=seconds)
            self._finish_epoch(record, logits)
        state = torch.load(self._best, map_location=self._machine.device, weights_only=True)
        self._network.load_state_dict(state)
        self._network.eval()

    @property
    def best(self) -> EpochRecord:
        """The epoch that is kept: the first with the best validation figure."""
        return max(self.history, key=lambda record: _score(record, self._recipe))

    def _is_over(self) -> bool:
        """Replay the early stop over the history, so that a resume needs no state of its own."""
        stopping = EarlyStopping(self._recipe.patience, self._recipe.running_average)
        stops = [stopping.update(record.val_loss, record.val_accuracy) for record in self.history]
        return any(stops) or len(self.history) > self._recipe.epochs

    def train_epoch(self, batches: Iterable[Batch], title: str) -> tuple[float, float]:
        """One pass of optimiser steps; the mean loss and the accuracy over the epoch's slices."""
        set_training_mode(self._network, self._recipe)
        loss_sum = hits = count = 0.0
        bar = progress(batches, title, "batch")
        for batch in bar:
            images = batch.images.to(self._machine.device, non_blocking=True)
            labels = batch.labels.to(self._machine.device, non_blocking=True)
            with self._machine.autocast():
                logits = self._network(images)
                loss = nn.functional.cross_entropy(logits.float(), labels)
            self._step(loss)
            loss_sum += loss.item() * len(labels)
            hits += (logits.argmax(1) == labels).sum().item()
            count += len(labels)
            bar.set_postfix(loss=f"{loss_sum / count:.3f}", accuracy=f"{hits / count:.3f}")
        if not loss_sum < float("inf"):
            raise TrainingError(f"{title}: the loss is not finite; lower --learning-rate")
        return loss_sum / count, hits / count

    def _step(self, loss: torch.Tensor) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimiser)
        self._scaler.update()

    def _finish_epoch(self, record: EpochRecord, logits: torch.Tensor) -> None:
        self.history.append(record)
        self.val_logits.append(logits)
        if self.best is record:
            write_atomically(self._best, lambda path: torch.save(self._network.state_dict(), path))
        state = {
            "network": self._network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "history": [asdict(row) for row in self.history],
            "val_logits": self.val_logits,
        }
        write_atomically(self._last, lambda path: torch.save(state, path))
        say(describe(record))  # once a kill can no longer undo it


def predict_logits(network: nn.Module, split: Split, recipe: Recipe, machine: Machine) -> torch.Tensor:
    """Logits of a split as the service sees its slices: float32 (N, 2), on the CPU."""
    network.eval()
    rows = []
    batches = plain_batches(split, recipe.input_size)
    with torch.inference_mode(), machine.autocast():
        for batch in progress(batches, f"evaluating {split.name}", "batch"):
            rows.append(network(batch.images.to(machine.device)).float().cpu())
    return torch.cat(rows)


def evaluate_epoch(
    network: SliceNetwork, val: Split, recipe: Recipe, machine: Machine
) -> tuple[EpochRecord, torch.Tensor]:
    """The validation figures of the network as it is, as epoch 0, and the logits they are of: float32 (N, 2)."""
    started = time.perf_counter()
    logits = predict_logits(network, val, recipe, machine)
    return figures_before(logits, val.labels, time.perf_counter() - started), logits


def figures_before(logits: torch.Tensor, labels: torch.Tensor, seconds: float) -> EpochRecord:
    """The row of a network before fine-tuning, by float32 (N, 2) logits and int64 (N,) labels."""
    return EpochRecord(
        epoch=0,
        train_loss=None,
        train_accuracy=None,
        val_loss=nn.functional.cross_entropy(logits, labels).item(),
        val_accuracy=(logits.argmax(1) == labels).float().mean().item(),
        val_auc=binary_auroc(logits[:, 1] - logits[:, 0], labels).item(),
        seconds=seconds,
    )


def make_optimiser(network: SliceNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    """One parameter group a layer; each convolution learns `layer_decay` times as fast as the one above it.

    Layer-wise decay: Howard & Ruder 2018, arXiv 1801.06146.
    """
    set_trainable(network, recipe)
    groups: list[dict[str, Any]] = [{"params": list(network.head.parameters()), "lr": recipe.learning_rate}]
    rate = recipe.learning_rate
    for layer in reversed(network.features):
        if isinstance(layer, nn.BatchNorm2d):  # lies above its convolution and shares its rate
            rate *= recipe.layer_decay
        parameters = [p for p in layer.parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "lr": rate})
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


def describe(record: EpochRecord) -> str:
    """One line for people."""
    train = ""
    if record.train_loss is not None:
        train = f"train loss {record.train_loss:.3f}, accuracy {record.train_accuracy:.3f}; "
    return (
        f"epoch {record.epoch}: {train}val loss {record.val_loss:.3f}, accuracy {record.val_accuracy:.3f}, "
        f"AUC {record.val_auc:.3f}; {record.seconds:.0f} s"
    )


def _score(record: EpochRecord, recipe: Recipe) -> float:
    return record.val_auc if recipe.select_by == "auc" else record.val_accuracy
