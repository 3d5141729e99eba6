"""Training of the lesion network: lung, lesion and label at once, with checkpoints and resume."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import TrainingError
from training.learning.lesion_samples import Batch, LesionSamples
from training.network.lesion_network import LesionNetwork, log_probability
from training.run.atomic_write import write_atomically
from training.run.history import append_row
from training.run.machine import Machine
from training.run.processes import current
from training.run.progress import progress, say
from training.run.run_folder import restoring

_CHECKPOINT_STEPS: Final = 100


@dataclass(frozen=True, slots=True)
class LesionTraining:
    """Settings of the lesion network's training.

    Attributes:
        steps: optimiser steps.
        batch_size: slices a step.
        learning_rate: largest, of VGG's convolutions; everything new has ten times as much.
        frozen: how many of VGG's first layers keep ImageNet's weights (14: blocks 1 and 2).
        machine: device and number format.
        checkpoint: file that a killed run resumes from.
    """

    steps: int
    batch_size: int
    learning_rate: float
    frozen: int
    machine: Machine
    checkpoint: Path

    @property
    def losses_path(self) -> Path:
        """CSV with the losses at each checkpoint."""
        return self.checkpoint.with_name(f"{self.checkpoint.stem}-losses.csv")


def train_lesion_network(network: LesionNetwork, samples: LesionSamples, training: LesionTraining) -> LesionNetwork:
    """Train to the last step and return the network with its averaged weights, in evaluation mode.

    AdamW with one cycle of the learning rate (Smith 2018, arXiv 1708.07120); batch norms keep ImageNet's statistics.

    Raises:
        TrainingError: the checkpoint is damaged or of another run.
    """
    device = training.machine.device
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in list(network.features)[: training.frozen]:
        layer.requires_grad_(False)
    trunk = [each for each in network.features.parameters() if each.requires_grad]
    new = [each for name, each in network.named_parameters() if not name.startswith("features.")]
    rates = [training.learning_rate, 10 * training.learning_rate]
    optimiser = torch.optim.AdamW(
        [{"params": trunk, "lr": rates[0]}, {"params": new, "lr": rates[1]}], weight_decay=0.02
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, training.steps, pct_start=0.1)
    state = _State(network, optimiser, schedule, samples)
    state.restore(training.checkpoint)
    processes = current()
    processes.check_same(state.step, f"the step of {training.checkpoint}")
    if state.step >= training.steps:  # resumed after its end: draw nothing
        network.load_state_dict(state.average)
        return network.eval()
    own = processes.own(training.batch_size)
    if not own:
        raise TrainingError(f"--batch-size {training.batch_size}: fewer slices than processes")
    parallel = DistributedDataParallel(network) if processes.count > 1 else network
    with ThreadPoolExecutor(1) as drawing:
        bar = progress(range(state.step, training.steps), "training lung and lesion", "step")
        waiting = drawing.submit(samples.batch, training.batch_size, own)
        for step in bar:
            batch = waiting.result()
            position = samples.position()  # of the generator, before the batch after this one is drawn
            waiting = drawing.submit(samples.batch, training.batch_size, own)
            losses = _step(network, parallel, batch, training, optimiser, schedule)
            state.advance(step + 1, losses)
            bar.set_postfix(state.running)
            if processes.is_first and ((step + 1) % _CHECKPOINT_STEPS == 0 or step + 1 == training.steps):
                say(f"step {step + 1}/{training.steps}: {state.summary()}")
                append_row(training.losses_path, {"step": step + 1, **state.running})
                state.save(training.checkpoint, position)
    network.load_state_dict(state.average)
    return network.eval()


class _State:
    """State that a run resumes from: weights, their average, optimiser, schedule, position of the generator."""

    def __init__(
        self,
        network: LesionNetwork,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.OneCycleLR,
        samples: LesionSamples,
    ) -> None:
        self._network, self._optimiser, self._schedule, self._samples = network, optimiser, schedule, samples
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = 0
        self.running: dict[str, float] = {}
        self._started = time.perf_counter()

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        """Move the averages on by one step."""
        self.step = step
        keep = min(0.99, step / (step + 9))
        with torch.no_grad():
            for name, value in self._network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
        self.running = {name: 0.97 * self.running.get(name, value) + 0.03 * value for name, value in losses.items()}

    def summary(self) -> str:
        """Running losses and seconds, as one line."""
        parts = [f"{name} {value:.3f}" for name, value in self.running.items()]
        return f"{', '.join(parts)}, {time.perf_counter() - self._started:.0f} s"

    def save(self, path: Path, position: Mapping[str, Any]) -> None:
        """Write the checkpoint; the file appears whole or not at all."""
        state = {
            "network": self._network.state_dict(),
            "average": self.average,
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "step": self.step,
            "running": self.running,
            "position": position,
        }
        write_atomically(path, lambda file: torch.save(state, file))

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, if there is one."""
        if not path.is_file():
            return
        with restoring(path):
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._network.load_state_dict(state["network"])
            self.average = state["average"]
            self._optimiser.load_state_dict(state["optimiser"])
            self._schedule.load_state_dict(state["schedule"])
            self.step, self.running = state["step"], state["running"]
            self._samples.seek(state["position"])


def _step(
    network: LesionNetwork,
    parallel: nn.Module,
    batch: Batch,
    training: LesionTraining,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
) -> dict[str, float]:
    device = training.machine.device
    network.train()
    network.features.eval()
    processes = current()
    with seeded_dropout(network.appearance.dropout, batch.seeds.tolist()), training.machine.autocast():
        batch = Batch(*(each.to(device) for each in batch))
        outputs = parallel(batch.pictures)
    losses = _losses(outputs, batch)
    optimiser.zero_grad()
    # gradients are averaged over processes, and each has its part of the sum over the whole batch
    loss = processes.count * (3 * losses["lesion"] + 0.7 * losses["overlap"] + losses["lung"] + 0.7 * losses["label"])
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    schedule.step()
    whole = processes.sum(torch.stack([value.detach() for value in losses.values()]))
    return dict(zip(losses, whole.tolist(), strict=True))


@contextmanager
def seeded_dropout(layer: nn.Dropout, seeds: Sequence[int]) -> Iterator[None]:
    """Draw the mask of each slice from its own seed, whatever slices are in the batch of this process."""

    def drop(_: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        (values,) = inputs
        noise = [torch.rand(values.shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return values * (torch.stack(noise).to(values.device) >= layer.p) / (1 - layer.p)

    hook, was_training = layer.register_forward_pre_hook(drop), layer.training
    layer.eval()  # it draws no mask of its own
    try:
        yield
    finally:
        hook.remove()
        layer.train(was_training)


def _losses(outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """Cross-entropy of lesion, lung and label, and lesion overlap (soft Dice, Milletari et al. 2016, 1606.04797).

    Averages over the batch of all processes, as far as this process has it: the losses of all add up to the whole.
    """
    weights = (batch.lesion_weight, batch.lung_weight, batch.label_weight)
    totals = current().sum(torch.stack([each.sum() for each in weights])).clamp_min(1.0)
    of_lesion, of_lung, of_label = (each / total for each, total in zip(weights, totals, strict=True))
    cells, lesion_odds, appearance_odds = outputs
    lung, lesion = cells[:, :1], cells[:, 1:]
    entropy = nn.functional.binary_cross_entropy_with_logits
    twice = torch.tensor(2.0, device=lesion.device)  # a missed lesion cell counts twice
    by_cell = entropy(lesion, batch.lesion, reduction="none", pos_weight=twice).mean((1, 2, 3))
    p = lesion.sigmoid()
    both, total = (p * batch.lesion).sum((1, 2, 3)), (p + batch.lesion).sum((1, 2, 3))
    log_p, log_not = log_probability(lesion_odds, appearance_odds)
    label = -(batch.label * log_p + (1 - batch.label) * log_not)
    return {
        "lesion": (by_cell * of_lesion).sum(),
        "overlap": ((1 - (2 * both + 20) / (total + 20)) * of_lesion).sum(),
        "lung": (entropy(lung, batch.lung, reduction="none").mean((1, 2, 3)) * of_lung).sum(),
        "label": (label * of_label).sum(),
    }
