"""From data to a trained network: pretrained weights, probe, fine-tuning. An interrupted run resumes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from service.model.card import SplitFingerprint
from training.data.covid_ct import CovidCt, Split, hash_of_files
from training.data.folds import FoldPlan, assign_folds, read_groups
from training.data.patients import read_patients
from training.data.reference import Reference
from training.errors import TrainingError
from training.learning.features import FeatureCache, predict_logits
from training.learning.fine_tuning import FineTuning, scores_before_training
from training.learning.linear_probe import fit_probe, probe_settings
from training.network.slice_network import SliceNetwork
from training.network.weights import load_imagenet
from training.recipe import Recipe
from training.run.atomic_write import write_atomically
from training.run.machine import Machine
from training.run.progress import say
from training.run.record import EpochRecord, Provenance, git_commit, library_versions
from training.run.run_folder import claim_run_folder
from training.run.seeding import seed_everything


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Recipe, machine and files of a training run.

    Attributes:
        weights: ImageNet weights in torchvision's layout; None downloads torchvision's own.
        run_folder: checkpoints of this run, from which an interrupted run resumes.
        patients: table of patients, for a recipe that is fitted to train and validation; without it, out-of-fold
            answers exist for validation only.
        cache: of features; runs that share it compute equal ones once.
    """

    recipe: Recipe
    machine: Machine
    weights: Path | None
    run_folder: Path
    patients: Path | None = None
    cache: FeatureCache = field(default_factory=FeatureCache)

    def provenance(self, data: Mapping[str, SplitFingerprint]) -> Provenance:
        """Return everything that a result of this run is made from."""
        return Provenance(
            config=self.recipe.as_json(),
            data=dict(data),
            git_commit=git_commit(),
            versions=library_versions(),
            machine=str(self.machine),
        )


@dataclass(frozen=True, slots=True)
class FittedNetwork:
    """A trained network.

    Attributes:
        source: of its pretrained weights.
        reference: answers on which temperature and threshold are chosen.
        history: one row per epoch, epoch 0 first.
        kept_epoch: epoch that the network's weights are from.
        val_logits: logits of validation after each epoch of fine-tuning: float32 (N, 2) each; empty without it.
        probe_seconds: wall time of the probe.
    """

    network: SliceNetwork
    source: str
    reference: Reference
    history: list[EpochRecord]
    kept_epoch: int
    val_logits: list[torch.Tensor]
    probe_seconds: float

    @property
    def epoch_seconds(self) -> float:
        """Wall time of fine-tuning."""
        return sum(record.seconds for record in self.history)


def fit(settings: FitSettings, data: CovidCt) -> FittedNetwork:
    """Train a network on the splits that its recipe names; test is not used.

    Raises:
        TrainingError: the run folder belongs to another recipe, other weights or other data; or the table of patients
            can't be read.
    """
    recipe, machine = settings.recipe, settings.machine
    claim(settings, data)
    network, source = pretrained_network(settings)
    probe_seconds, reference = _probe(settings, network, data)
    tuning = _fine_tune(settings, network, data) if recipe.fine_tuning else None
    if reference is None:
        logits = predict_logits(network, data.val, machine.without_autocast(), recipe.network.input_size)
        reference = Reference("val", data.val, logits)
    if tuning:
        history, kept_epoch, val_logits = tuning.history, tuning.best.epoch, tuning.val_logits
    else:
        history = [scores_before_training(reference.logits, reference.split.labels, seconds=0.0)]
        kept_epoch, val_logits = 0, []
        say(str(history[0]))
    return FittedNetwork(network, source, reference, history, kept_epoch, val_logits, probe_seconds)


def pretrained_network(settings: FitSettings) -> tuple[SliceNetwork, str]:
    """Return the network with pretrained weights, on the machine's device, and the source of the weights."""
    recipe = settings.recipe
    seed_everything(recipe.seed, "weights")
    network = SliceNetwork(recipe.network)
    source = load_imagenet(network, recipe.network.architecture, settings.weights)
    return network.to(memory_format=torch.channels_last).to(settings.machine.device), source


def claim(settings: FitSettings, data: CovidCt) -> None:
    """Bind the run folder to this recipe, these weights and these data, or check that it is bound to them.

    Raises:
        TrainingError: the folder belongs to another recipe, other weights, data or patients; or the table of patients
            can't be read.
    """
    own: dict[str, object] = {**settings.recipe.as_json()}
    own["weights"] = str(settings.weights) if settings.weights else "torchvision"
    if settings.recipe.fits_validation:
        own["sha256 of patients"] = _fingerprint_of_patients(settings.patients, data.train_and_val())
    own |= {f"sha256 of {name} data": each.sha256 for name, each in data.fingerprints().items()}
    claim_run_folder(settings.run_folder, own)


def _fine_tune(settings: FitSettings, network: SliceNetwork, data: CovidCt) -> FineTuning:
    tuning = FineTuning(network, settings.recipe, settings.machine, settings.run_folder)
    if tuning.resume():
        say(f"{settings.run_folder}: continuing after epoch {tuning.history[-1].epoch}")
    tuning.run(data)
    return tuning


def _probe(settings: FitSettings, network: SliceNetwork, data: CovidCt) -> tuple[float, Reference | None]:
    """Fit the head, or load it from the run folder; return the seconds and the out-of-fold answers."""
    recipe = settings.recipe
    if not recipe.probe:
        return 0.0, None
    path = settings.run_folder / "probe.pt"
    if not path.exists():
        started = time.perf_counter()
        whole = recipe.fits_validation
        split, folds = (data.train_and_val(), _folds(settings, data)) if whole else (data.train, None)
        answers = fit_probe(network, split, recipe, settings.machine, folds, settings.cache)
        seconds = time.perf_counter() - started
        state = {"head": network.head.state_dict(), "seconds": seconds, "answers": answers, "folds": folds}
        write_atomically(path, lambda temporary: torch.save(state, temporary))
        say(f"linear probe: {seconds:.0f} s")
    state = torch.load(path, map_location=settings.machine.device, weights_only=True)
    network.head.load_state_dict(state["head"])
    reference = None
    if recipe.fits_validation:
        held_out = state["folds"].cpu() >= 0
        reference = Reference("out-of-fold", data.train_and_val().where(held_out), state["answers"].cpu()[held_out])
    return float(state["seconds"]), reference


def _fingerprint_of_patients(path: Path | None, split: Split) -> str:
    if path is None:
        return "no table"
    groups = read_patients(path, split)
    return hash_of_files(f"{each.path} {group}" for each, group in zip(split.slices, groups, strict=True))


def _folds(settings: FitSettings, data: CovidCt) -> torch.Tensor:
    """Return the fold that holds each slice of train and validation out: int64 (N,), -1 for none.

    Without a table of patients, only the official split is known to keep patients together. Validation is then the only
    fold.
    """
    if settings.patients is None:
        return torch.tensor([-1] * len(data.train.slices) + [0] * len(data.val.slices))
    split = data.train_and_val()
    group_by = probe_settings(settings.recipe).group_by
    plan = FoldPlan(read_groups(settings.patients, split, group_by), repeats=1, group_by=group_by)
    try:
        return assign_folds(split, plan)[0]
    except TrainingError as error:
        raise TrainingError(
            f"{settings.patients}: too few {group_by}s for {plan.folds} folds ({error}); pass "
            + ("--group-by patient or " if group_by == "paper" else "")
            + "--fit-on train"
        ) from error
