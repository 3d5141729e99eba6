"""Fine-tuning: epochs of gradient descent, early stopping, a checkpoint after each epoch, resume."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from training.data.covid_ct import BATCH, CovidCt, Split, plain_inputs
from training.errors import TrainingError
from training.report.batches import Batch, training_batches
from training.report.network import SliceNetwork
from training.report_recipe import ReportRecipe
from training.run.atomic_write import write_atomically, write_csv
from training.run.machine import Machine
from training.run.progress import progress, say
from training.run.seeding import seed_everything
from training.run.stages import restoring


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


def is_over(history: Sequence[EpochRecord], recipe: ReportRecipe) -> bool:
    """Whether training ends after these epochs: all are done, or no running average improved for `patience` epochs.

    The averages are those of validation loss and accuracy. Nothing else is needed, so a resumed run needs no state.
    """
    loss, accuracy = history[0].val_loss, history[0].val_accuracy
    best_loss, best_accuracy, without = loss, accuracy, 0
    past = recipe.running_average
    for epoch in history[1:]:
        loss = past * loss + (1 - past) * epoch.val_loss
        accuracy = past * accuracy + (1 - past) * epoch.val_accuracy
        without = 0 if loss < best_loss or accuracy > best_accuracy else without + 1
        if without >= recipe.patience:
            return True
        best_loss, best_accuracy = min(best_loss, loss), max(best_accuracy, accuracy)
    return len(history) > recipe.epochs


class FineTuning:
    """A fine-tuning run in a folder, which resumes after the last epoch that it wrote.

    `last.pt` has the state that the next epoch needs, 1.1 GB for VGG-19, and is written at most every
    `checkpoint_seconds`, and at the end. `best.pt` has the weights of the best epoch so far. Epochs after the last
    checkpoint are repeated by a resumed run, with the same results.

    Attributes:
        network: with the weights of the best epoch, in evaluation mode, after `run`.
        history: one row per epoch, epoch 0 first.
    """

    def __init__(
        self,
        network: SliceNetwork,
        recipe: ReportRecipe,
        machine: Machine,
        folder: Path,
        checkpoint_seconds: float = 0.0,
    ) -> None:
        self.network = network
        self._recipe = recipe
        self._machine = machine
        self._last, self._best = folder / "last.pt", folder / "best.pt"
        self._optimiser = torch.optim.SGD(network.parameters(), recipe.learning_rate, recipe.momentum)
        self._scaler = machine.scaler()
        self.history: list[EpochRecord] = []
        self._checkpoint_seconds = checkpoint_seconds
        self._written = time.perf_counter()

    def resume(self) -> bool:
        """Restore the last complete epoch; return whether there was one."""
        if not self._last.exists():
            return False
        with restoring(self._last):
            state = torch.load(self._last, map_location=self._machine.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._scaler.load_state_dict(state["scaler"])
            self.history = [EpochRecord(**row) for row in state["history"]]
        return True

    def run(self, data: CovidCt) -> None:
        """Train to the last epoch or an early stop; the network ends with the weights of the best epoch."""
        if not self.history:
            self._finish_epoch(self._validate(data.val))
        while not is_over(self.history, self._recipe):
            epoch = len(self.history)
            started = time.perf_counter()
            seed_everything(self._recipe.seed, "epoch", epoch)
            batches = training_batches(data.train, self._recipe, epoch, workers=self._machine.workers)
            loss, accuracy = self.train_epoch(batches, f"epoch {epoch}/{self._recipe.epochs}")
            record = self._validate(data.val)
            seconds = time.perf_counter() - started
            record = replace(record, epoch=epoch, train_loss=loss, train_accuracy=accuracy, seconds=seconds)
            self._finish_epoch(record)
        state = torch.load(self._best, map_location=self._machine.device, weights_only=True)
        self.network.load_state_dict(state)
        self.network.eval()

    @property
    def best(self) -> EpochRecord:
        """The epoch that is kept: the first one with the best validation accuracy."""
        return max(self.history, key=lambda record: record.val_accuracy)

    def train_epoch(self, batches: Iterable[Batch], title: str) -> tuple[float, float]:
        """Take one optimiser step per batch; return mean loss and accuracy over the slices."""
        self.network.train()
        loss_sum = hits = count = 0.0
        bar = progress(batches, title, "batch")
        for batch in bar:
            images, labels = (tensor.to(self._machine.device, non_blocking=True) for tensor in batch)
            with self._machine.autocast():
                logits = self.network(images)
                loss = nn.functional.cross_entropy(logits.float(), labels)
            self._step(loss)
            loss_sum += loss.item() * len(labels)
            hits += (logits.argmax(1) == labels).sum().item()
            count += len(labels)
            bar.set_postfix(loss=f"{loss_sum / count:.3f}", accuracy=f"{hits / count:.3f}")
        if not loss_sum < float("inf"):
            raise TrainingError(f"{title}: the loss is not finite; lower --learning-rate")
        return loss_sum / count, hits / count

    def _validate(self, val: Split) -> EpochRecord:
        """Return the validation figures as epoch 0."""
        started = time.perf_counter()
        logits = predict_logits(self.network, val, self._machine, self._recipe.input_size)
        return EpochRecord(
            epoch=0,
            train_loss=None,
            train_accuracy=None,
            val_loss=nn.functional.cross_entropy(logits, val.labels).item(),
            val_accuracy=(logits.argmax(1) == val.labels).float().mean().item(),
            val_auc=_auc(logits, val.labels),
            seconds=time.perf_counter() - started,
        )

    def _step(self, loss: torch.Tensor) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimiser)
        self._scaler.update()

    def _finish_epoch(self, record: EpochRecord) -> None:
        self.history.append(record)
        if self.best is record:
            write_atomically(self._best, lambda file: torch.save(self.network.state_dict(), file))
        if is_over(self.history, self._recipe) or time.perf_counter() - self._written >= self._checkpoint_seconds:
            self._write_checkpoint()
        say(str(record))  # after the write: a kill can no longer undo an epoch that was written

    def _write_checkpoint(self) -> None:
        history = [asdict(row) for row in self.history]
        state = {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "history": history,
        }
        write_atomically(self._last, lambda file: torch.save(state, file))
        write_csv(self._last.with_name("history.csv"), history[0], (row.values() for row in history))
        self._written = time.perf_counter()


def _auc(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Area under the ROC curve; that of a guess if a logit is not finite, which the next epoch reports."""
    return float(roc_auc_score(labels, logits[:, 1] - logits[:, 0])) if logits.isfinite().all() else 0.5


def predict_logits(network: SliceNetwork, split: Split, machine: Machine, input_size: int) -> torch.Tensor:
    """Return the logits of a split with the service's preparation of slices: float32 (N, 2), on the CPU."""
    network.eval()
    rows = []
    batches = torch.split(plain_inputs(split, input_size), BATCH)
    with torch.inference_mode(), machine.autocast():
        for batch in progress(batches, f"evaluating {split.name}", "batch"):
            rows.append(network(batch.to(machine.device)).float().cpu())
    return torch.cat(rows)
