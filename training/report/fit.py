"""The report's training: pretrained weights, then epochs of fine-tuning. An interrupted run resumes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from service.model.card import SplitFingerprint
from training.data.covid_ct import CovidCt
from training.report.fine_tuning import FineTuning
from training.report.network import SliceNetwork, load_imagenet
from training.report_recipe import ReportRecipe
from training.run.machine import Machine
from training.run.progress import say
from training.run.record import EpochRecord, Provenance, hash_file, make_provenance
from training.run.run_folder import claim_run_folder
from training.run.seeding import seed_everything


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Recipe, machine and files of a training run.

    Attributes:
        weights: ImageNet weights in torchvision's layout; None downloads torchvision's own.
        run_folder: checkpoints of this run, from which an interrupted run resumes.
        checkpoint_seconds: least time between two checkpoints.
    """

    recipe: ReportRecipe
    machine: Machine
    weights: Path | None
    run_folder: Path
    checkpoint_seconds: float = 0.0

    @property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of the weights; torchvision's own are checked when they are downloaded."""
        return {"weights": hash_file(self.weights) if self.weights else "torchvision"}

    def provenance(self, data: Mapping[str, SplitFingerprint]) -> Provenance:
        """Return everything that a result of this run is made from."""
        return make_provenance(self.recipe.model_dump(mode="json"), data, self.inputs, str(self.machine))


@dataclass(frozen=True, slots=True)
class FittedNetwork:
    """A trained network.

    Attributes:
        source: of its pretrained weights.
        history: one row per epoch, epoch 0 first.
        kept_epoch: epoch that the network's weights are from.
    """

    network: SliceNetwork
    source: str
    history: list[EpochRecord]
    kept_epoch: int


def fit(settings: FitSettings, data: CovidCt) -> FittedNetwork:
    """Train a network on train and choose its epoch on validation; test is not used.

    Raises:
        TrainingError: as `claim`.
    """
    claim(settings, data)
    recipe, machine = settings.recipe, settings.machine
    seed_everything(recipe.seed, "weights")
    network = SliceNetwork(recipe.architecture)
    source = load_imagenet(network, recipe.architecture, settings.weights)
    network = network.to(memory_format=torch.channels_last).to(machine.device)
    tuning = FineTuning(network, recipe, machine, settings.run_folder, settings.checkpoint_seconds)
    if tuning.resume():
        say(f"{settings.run_folder}: continuing after epoch {tuning.history[-1].epoch}")
    tuning.run(data)
    return FittedNetwork(network, source, tuning.history, tuning.best.epoch)


def claim(settings: FitSettings, data: CovidCt, *, fresh: bool = False) -> None:
    """Bind the run folder to this recipe, these weights and these data, or check that it is bound to them.

    With `fresh`, the files of an old run in it are deleted first.

    Raises:
        TrainingError: the folder belongs to another recipe, other weights or other data; or there are no weights.
    """
    claimed: dict[str, object] = {**settings.recipe.model_dump(mode="json")}
    claimed |= {f"sha256 of {name}": value for name, value in settings.inputs.items()}
    claimed |= {f"sha256 of {name} data": split.sha256 for name, split in data.fingerprints().items()}
    claim_run_folder(settings.run_folder, claimed, fresh=fresh)
