"""From data to a trained network: ImageNet weights, probe, fine-tuning; interrupted, it goes on where it was."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from training.data.covid_ct import CovidCt, Split, hash_of_files
from training.data.folds import Folding, deal, read_groups
from training.data.patients import read_patients
from training.data.reference import Reference
from training.errors import TrainingError
from training.learning.features import FeatureCache
from training.learning.fine_tuning import FineTuning, predict_logits
from training.learning.linear_probe import fit_probe
from training.network.slice_network import SliceNetwork
from training.network.weights import load_imagenet
from training.recipe import Recipe
from training.run.atomic_write import write_atomically
from training.run.machine import Machine
from training.run.progress import say
from training.run.run_folder import claim_run_folder
from training.run.seeding import seed_everything


@dataclass(frozen=True, slots=True)
class Fitting:
    """What to train, on what, and where its checkpoints are.

    Attributes:
        weights: ImageNet weights in torchvision's layout; None downloads torchvision's own.
        run_folder: checkpoints of this run; an interrupted run goes on from them.
        patients: table of whose slices they are, for a recipe that is fitted to train and validation; without one,
            validation alone is asked about out of fold.
        cache: of features; runs that share it compute the same ones once.
    """

    recipe: Recipe
    machine: Machine
    weights: Path | None
    run_folder: Path
    patients: Path | None = None
    cache: FeatureCache = field(default_factory=FeatureCache)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network.

    Attributes:
        source: where its pretrained weights came from.
        probe_seconds: wall time of the probe; that of fine-tuning is in the history.
        reference: what to choose temperature and threshold on.
    """

    network: SliceNetwork
    tuning: FineTuning
    source: str
    probe_seconds: float
    reference: Reference


def fit(fitting: Fitting, data: CovidCt) -> Fitted:
    """Train a network on the splits that its recipe names; test is not looked at.

    Raises:
        TrainingError: the run folder holds a run of another recipe, from other weights or of other data; or the
            patients can't be read.
    """
    recipe, machine = fitting.recipe, fitting.machine
    claim(fitting, data)
    network, source = pretrained_network(fitting)
    probe_seconds, reference = _probe(fitting, network, data)
    tuning = FineTuning(network, recipe, machine, fitting.run_folder)
    if tuning.resume():
        say(f"{fitting.run_folder}: going on after epoch {tuning.history[-1].epoch}")
    if reference:
        tuning.begin_with(reference.logits, reference.split.labels)
    tuning.run(data)
    if not reference:
        reference = Reference("val", data.val, predict_logits(network, data.val, recipe, machine.exact()))
    return Fitted(network, tuning, source, probe_seconds, reference)


def pretrained_network(fitting: Fitting) -> tuple[SliceNetwork, str]:
    """The network with its pretrained weights, on the machine's device, and where they came from."""
    seed_everything(fitting.recipe.seed, "weights")
    network = SliceNetwork(fitting.recipe)
    source = load_imagenet(network, fitting.recipe, fitting.weights)
    return network.to(memory_format=torch.channels_last).to(fitting.machine.device), source


def claim(fitting: Fitting, data: CovidCt) -> None:
    """Let the run folder belong to this recipe, these weights and these data, or check that it does.

    Raises:
        TrainingError: the folder holds a run of another recipe, from other weights, of other data or patients; or the
            patients can't be read.
    """
    weights = {"weights": str(fitting.weights) if fitting.weights else "torchvision"}
    if fitting.recipe.fit_on == "train+val":
        weights["sha256 of patients"] = _fingerprint_of_patients(fitting.patients, data.train_and_val())
    hashes = {f"sha256 of {split.name} data": split.fingerprint().sha256 for split in data}
    mine: dict[str, object] = fitting.recipe.model_dump(mode="json") | weights | hashes
    claim_run_folder(fitting.run_folder, mine)


def _fingerprint_of_patients(path: Path | None, split: Split) -> str:
    if path is None:
        return "no table"
    groups = read_patients(path, split)
    return hash_of_files(f"{scan.path} {group}" for scan, group in zip(split.scans, groups, strict=True))


def _probe(fitting: Fitting, network: SliceNetwork, data: CovidCt) -> tuple[float, Reference | None]:
    """Fit the head, or take it from the run's folder: the seconds that it took, and what is out of fold."""
    if not fitting.recipe.probe:
        return 0.0, None
    whole = fitting.recipe.fit_on == "train+val"
    path = fitting.run_folder / "probe.pt"
    if not path.exists():
        started = time.perf_counter()
        split, folds = (data.train_and_val(), _folds(fitting, data)) if whole else (data.train, None)
        answers = fit_probe(network, split, fitting.recipe, fitting.machine, folds, fitting.cache)
        seconds = time.perf_counter() - started
        state = {"head": network.head.state_dict(), "seconds": seconds, "answers": answers, "folds": folds}
        write_atomically(path, lambda temporary: torch.save(state, temporary))
        say(f"linear probe: {seconds:.0f} s")
    state = torch.load(path, map_location=fitting.machine.device, weights_only=True)
    network.head.load_state_dict(state["head"])
    reference = None
    if whole:
        held_out = state["folds"].cpu() >= 0
        reference = Reference("out-of-fold", data.train_and_val().where(held_out), state["answers"].cpu()[held_out])
    return float(state["seconds"]), reference


def _folds(fitting: Fitting, data: CovidCt) -> torch.Tensor:
    """The fold that holds each slice of train and validation out, int64 (N,).

    Without a table of patients only the official parting is known to split none: validation is one fold, and no other
    slice is held out.
    """
    if fitting.patients is None:
        return torch.tensor([-1] * len(data.train.scans) + [0] * len(data.val.scans))
    split = data.train_and_val()
    together = fitting.recipe.together
    folding = Folding(read_groups(fitting.patients, split, together), repeats=1, together=together)
    try:
        return deal(split, folding)[0]
    except TrainingError as error:
        raise TrainingError(
            f"{fitting.patients}: too few {together}s for {folding.folds} folds ({error}); pass "
            + ("--together patient or " if together == "paper" else "")
            + "--fit-on train"
        ) from error
