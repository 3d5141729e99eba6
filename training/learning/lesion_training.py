"""Training of the lesion network: lung, lesion and label at once, with checkpoints and snapshots."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import TrainingError
from training.learning.lesion_losses import lesion_losses, total_loss
from training.learning.lesion_samples import Batch, LesionSamples
from training.lesion_recipe import LesionRecipe
from training.network.lesion_network import LesionNetwork
from training.network.seeded_dropout import seeded_dropout
from training.run.atomic_write import write_atomically
from training.run.loss_table import append_losses, has_row, losses_path
from training.run.machine import Machine
from training.run.processes import current
from training.run.progress import progress, say
from training.run.stages import restoring

_CHECKPOINT_STEPS: Final = 100

_FIRST_SNAPSHOT: Final = 500
"""Step of the first snapshot; each later one has twice the steps."""

_NEW_LAYERS: Final = 10
"""Learning rate of new layers, in that of VGG's convolutions."""

_AVERAGED: Final = 9
"""The average of weights gives the last one 9 / (step + 9), so it covers the last ninth of a run of any length."""


@dataclass(frozen=True, slots=True)
class LesionTraining:
    """Settings of the lesion network's training.

    Attributes:
        recipe: batch size, learning rate and its schedule, frozen layers.
        checkpoint: file that a killed run resumes from.
    """

    recipe: LesionRecipe
    steps: int
    machine: Machine
    checkpoint: Path

    def snapshot_path(self, step: int) -> Path:
        """File with the averaged weights after so many steps."""
        return self.checkpoint.with_name(f"{self.checkpoint.stem}-{step:06d}.pt")

    def rate(self, step: int) -> float:
        """Share of the learning rate in a step, counted from 0: it rises, is constant and falls."""
        warm_up, cool_down = self.recipe.warm_up_steps, max(1, self.recipe.cool_down_steps)
        return min(1.0, (step + 1) / warm_up, (self.steps - step) / cool_down)

    def has_snapshot(self, step: int) -> bool:
        """Whether weights are kept after this step: the last one, 500, 1,000, 2,000, 4,000 and so on."""
        doublings = step // _FIRST_SNAPSHOT
        return step == self.steps or (step == doublings * _FIRST_SNAPSHOT and doublings.bit_count() == 1)


def train_lesion_network(network: LesionNetwork, samples: LesionSamples, training: LesionTraining) -> LesionNetwork:
    """Train to the last step and return the network with its averaged weights, in evaluation mode.

    AdamW with a learning rate that rises, stays constant and falls to zero in the last steps (warm-up, stable, decay:
    Hu et al. 2024, arXiv 2404.06395). A lengthened run continues from its last weights at the constant rate, and falls
    again at its new end (Wen et al. 2024, arXiv 2410.05192). The weights are averaged over the last ninth of all steps
    (power function, Karras et al. 2024, arXiv 2312.02696).
    """
    _freeze(network, training.recipe.frozen_layers)
    network.to(training.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    finished = training.snapshot_path(training.steps)
    if current().lacks(finished):
        _set_weights(network, _train(network, samples, training))
    else:
        with restoring(finished):
            _set_weights(network, torch.load(finished, map_location="cpu", weights_only=True))
    return network


def _train(network: LesionNetwork, samples: LesionSamples, training: LesionTraining) -> Mapping[str, torch.Tensor]:
    """Train from the checkpoint, if there is one, to the last step; return the averaged weights."""
    processes = current()
    state = _State(network, _optimiser(network, training), samples)
    state.restore(training.checkpoint)
    processes.check_same(state.step, f"the step of {training.checkpoint}")
    if state.step >= training.steps:
        raise TrainingError(f"{training.checkpoint}: at step {state.step}, and step {training.steps} was not kept")
    batch_size = training.recipe.batch_size
    places = processes.places(batch_size)
    if not places:
        raise TrainingError(f"--batch-size {batch_size}: fewer slices than processes")

    def draw() -> tuple[Batch, Mapping[str, Any]]:
        return samples.batch(batch_size, places), samples.position()

    parallel = DistributedDataParallel(network) if processes.count > 1 else network
    bar = progress(range(state.step, training.steps), "training lung and lesion", "step")
    with ThreadPoolExecutor(1) as drawing:
        drawn = drawing.submit(draw)
        for step in bar:
            (batch, position), drawn = drawn.result(), drawing.submit(draw)
            for group in state.optimiser.param_groups:
                group["lr"] = group["largest_lr"] * training.rate(step)
            state.advance(_step(state, parallel, batch, training.machine))
            bar.set_postfix(**state.running)
            if processes.is_first:
                _keep(state, training, position)
    return state.average


def _keep(state: "_State", training: LesionTraining, position: Mapping[str, Any]) -> None:
    """Write what is kept after this step: averaged weights, losses, a checkpoint."""
    step = state.step
    if training.has_snapshot(step):
        write_atomically(training.snapshot_path(step), lambda file: torch.save(state.average, file))
    if has_row(step, training.steps):
        append_losses(losses_path(training.checkpoint), {"step": step, **state.running, "seconds": state.seconds})
    if step % _CHECKPOINT_STEPS == 0 or step == training.steps:
        say(f"step {step}/{training.steps}: {state.summary()}")
        state.save(training.checkpoint, position)


def _weights(network: LesionNetwork) -> dict[str, torch.Tensor]:
    """Return the weights that are trained, which share the network's memory."""
    return {name: value.detach() for name, value in network.named_parameters() if value.requires_grad}


def _set_weights(network: LesionNetwork, weights: Mapping[str, torch.Tensor]) -> None:
    for name, value in _weights(network).items():
        value.copy_(weights[name])


def _freeze(network: LesionNetwork, layers: int) -> None:
    network.eval()  # batch norms keep ImageNet's statistics
    for layer in list(network.features)[:layers]:
        layer.requires_grad_(False)


def _optimiser(network: LesionNetwork, training: LesionTraining) -> torch.optim.Optimizer:
    rate = training.recipe.learning_rate
    trunk = [weight for weight in network.features.parameters() if weight.requires_grad]
    new = [weight for name, weight in network.named_parameters() if not name.startswith("features.")]
    groups = [{"params": trunk, "largest_lr": rate}, {"params": new, "largest_lr": _NEW_LAYERS * rate}]
    return torch.optim.AdamW(groups, weight_decay=0.02)


class _State:
    """State that a run resumes from: weights, their average, optimiser, finished steps, running losses."""

    def __init__(self, network: LesionNetwork, optimiser: torch.optim.Optimizer, samples: LesionSamples) -> None:
        self.network, self.optimiser, self._samples = network, optimiser, samples
        self.average = {name: value.clone() for name, value in _weights(network).items()}
        self.step = 0
        self.running: dict[str, float] = {}
        self._started = time.perf_counter()  # of this process, minus the time of earlier ones

    def advance(self, losses: Mapping[str, float]) -> None:
        """Finish a step: add its weights and losses to the averages."""
        self.step += 1
        for name, value in _weights(self.network).items():
            self.average[name].lerp_(value, _AVERAGED / (self.step + _AVERAGED))
        self.running = {name: 0.97 * self.running.get(name, value) + 0.03 * value for name, value in losses.items()}

    @property
    def seconds(self) -> float:
        """Time of the training so far, in all processes that continued it."""
        return round(time.perf_counter() - self._started, 1)

    def summary(self) -> str:
        """Running losses and seconds, as one line."""
        parts = [f"{name} {value:.3f}" for name, value in self.running.items()]
        return f"{', '.join(parts)}, {self.seconds:.0f} s"

    def save(self, path: Path, position: Mapping[str, Any]) -> None:
        """Write the checkpoint; the file appears whole or not at all."""
        state = {
            "weights": _weights(self.network),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "running": self.running,
            "seconds": self.seconds,
            "position": position,
        }
        write_atomically(path, lambda file: torch.save(state, file))

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, if there is one."""
        if not path.is_file():
            return
        with restoring(path):
            state = torch.load(path, map_location="cpu", weights_only=True)
            _set_weights(self.network, state["weights"])
            for name, value in self.average.items():
                value.copy_(state["average"][name])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.running = state["step"], state["running"]
            self._started -= state["seconds"]
            self._samples.seek(state["position"])


def _step(state: _State, parallel: nn.Module, batch: Batch, machine: Machine) -> dict[str, float]:
    batch = Batch(*(tensor.to(machine.device) for tensor in batch))
    with seeded_dropout(state.network.appearance.dropout, batch.seeds.tolist()), machine.autocast():
        outputs = parallel(batch.pictures)
    losses = lesion_losses(outputs, batch)
    state.optimiser.zero_grad()
    # gradients are averaged over processes, and each has its part of the sum over the whole batch
    (current().count * total_loss(losses)).backward()  # type: ignore[no-untyped-call]
    weights = [weight for group in state.optimiser.param_groups for weight in group["params"]]
    nn.utils.clip_grad_norm_(weights, max_norm=5.0)
    state.optimiser.step()
    whole = current().sum(torch.stack([value.detach() for value in losses.values()]))
    return dict(zip(losses, whole.tolist(), strict=True))
