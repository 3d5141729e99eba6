"""Training of the lesion network: lung, lesion and label at once, with checkpoints and snapshots."""

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
from training.learning.losses import append_losses, has_row, losses_path
from training.lesion_recipe import LesionRecipe
from training.network.lesion_network import LesionNetwork, log_probability
from training.run.atomic_write import write_atomically
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
    if not current().lacks(finished):
        with restoring(finished):
            _take(network, torch.load(finished, map_location="cpu", weights_only=True))
        return network
    optimiser = _optimiser(network, training)
    state = _State(network, optimiser, samples)
    state.restore(training.checkpoint)
    processes = current()
    processes.check_same(state.step, f"the step of {training.checkpoint}")
    if state.step >= training.steps:
        raise TrainingError(f"{training.checkpoint}: at step {state.step}, and step {training.steps} was not kept")
    batch_size = training.recipe.batch_size
    places = processes.places(batch_size)
    if not places:
        raise TrainingError(f"--batch-size {batch_size}: fewer slices than processes")
    parallel = DistributedDataParallel(network) if processes.count > 1 else network
    with ThreadPoolExecutor(1) as drawing:
        bar = progress(range(state.step, training.steps), "training lung and lesion", "step")
        waiting = drawing.submit(samples.batch, batch_size, places)
        for step in bar:
            batch = waiting.result()
            position = samples.position()  # of the generator, before the batch after this one is drawn
            waiting = drawing.submit(samples.batch, batch_size, places)
            for group in optimiser.param_groups:
                group["lr"] = group["largest_lr"] * training.rate(step)
            losses = _step(network, parallel, batch, training, optimiser)
            state.advance(step + 1, losses)
            bar.set_postfix(**state.running)
            if processes.is_first:
                _keep(state, training, position)
    _take(network, state.average)
    return network


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


def _trainable(network: LesionNetwork) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in network.named_parameters() if value.requires_grad}


def _take(network: LesionNetwork, weights: Mapping[str, torch.Tensor]) -> None:
    for name, value in _trainable(network).items():
        value.copy_(weights[name])


def _freeze(network: LesionNetwork, layers: int) -> None:
    network.eval()  # batch norms keep ImageNet's statistics
    for layer in list(network.features)[:layers]:
        layer.requires_grad_(False)


def _optimiser(network: LesionNetwork, training: LesionTraining) -> torch.optim.Optimizer:
    rate = training.recipe.learning_rate
    trunk = [weight for weight in network.features.parameters() if weight.requires_grad]
    new = [weight for name, weight in network.named_parameters() if not name.startswith("features.")]
    groups = [
        {"params": trunk, "largest_lr": rate},
        {"params": new, "largest_lr": _NEW_LAYERS * rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=0.02)


class _State:
    """State that a run resumes from: weights, their average, optimiser, position of the generator."""

    def __init__(
        self,
        network: LesionNetwork,
        optimiser: torch.optim.Optimizer,
        samples: LesionSamples,
    ) -> None:
        self._network, self._optimiser, self._samples = network, optimiser, samples
        self.average = {name: value.clone() for name, value in _trainable(network).items()}
        self.step = 0
        self.running: dict[str, float] = {}
        self._started = time.perf_counter()  # of this process, minus the time of earlier ones

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        """Move the averages on by one step."""
        self.step = step
        for name, value in _trainable(self._network).items():
            self.average[name].lerp_(value, _AVERAGED / (step + _AVERAGED))
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
            "weights": _trainable(self._network),
            "average": self.average,
            "optimiser": self._optimiser.state_dict(),
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
            _take(self._network, state["weights"])
            for name, value in self.average.items():
                value.copy_(state["average"][name])
            self._optimiser.load_state_dict(state["optimiser"])
            self.step, self.running = state["step"], state["running"]
            self._started -= state["seconds"]
            self._samples.seek(state["position"])


def _step(
    network: LesionNetwork,
    parallel: nn.Module,
    batch: Batch,
    training: LesionTraining,
    optimiser: torch.optim.Optimizer,
) -> dict[str, float]:
    batch = Batch(*(tensor.to(training.machine.device) for tensor in batch))
    with seeded_dropout(network.appearance.dropout, batch.seeds.tolist()), training.machine.autocast():
        outputs = parallel(batch.pictures)
    losses = _losses(outputs, batch)
    optimiser.zero_grad()
    # gradients are averaged over processes, and each has its part of the sum over the whole batch
    loss = 3 * losses["lesion"] + 0.7 * losses["overlap"] + losses["lung"] + 0.7 * losses["label"]
    (current().count * loss).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_([weight for group in optimiser.param_groups for weight in group["params"]], 5.0)
    optimiser.step()
    whole = current().sum(torch.stack([value.detach() for value in losses.values()]))
    return dict(zip(losses, whole.tolist(), strict=True))


@contextmanager
def seeded_dropout(layer: nn.Dropout, seeds: Sequence[int]) -> Iterator[None]:
    """Draw the mask of each slice from its seed, so that it does not depend on the other slices of the batch."""

    def drop(_: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        (values,) = inputs
        noise = [torch.rand(values.shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return values * (torch.stack(noise).to(values.device) >= layer.p) / (1 - layer.p)

    hook, was_training = layer.register_forward_pre_hook(drop), layer.training
    layer.eval()  # so that it draws no mask itself
    try:
        yield
    finally:
        hook.remove()
        layer.train(was_training)


def _losses(outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """Cross-entropy of lesion, lung and label; overlap of lesions (soft Dice, Milletari et al. 2016, 1606.04797).

    Averages over the batch of all processes, as far as this process has it: the losses of all add up to the whole.
    """
    weights = (batch.lesion_weight, batch.lung_weight, batch.label_weight)
    totals = current().sum(torch.stack([weight.sum() for weight in weights])).clamp_min(1.0)
    of_lesion, of_lung, of_label = (weight / total for weight, total in zip(weights, totals, strict=True))
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
