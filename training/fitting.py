"""From data to a trained network: ImageNet weights, probe, fine-tuning; interrupted, it goes on where it was."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from service.files import write_atomically
from training.config import Recipe
from training.data import CovidCt
from training.engine import FineTuning
from training.errors import TrainingError
from training.machine import Machine
from training.network import SliceNetwork, load_imagenet
from training.probe import fit_probe
from training.progress import say
from training.seeding import seed_everything


@dataclass(frozen=True, slots=True)
class Fitting:
    """What to train, on what, and where its checkpoints are.

    Attributes:
        weights: ImageNet weights in torchvision's layout; None downloads torchvision's own.
        run_folder: checkpoints of this run; an interrupted run goes on from them.
    """

    recipe: Recipe
    machine: Machine
    weights: Path | None
    run_folder: Path


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network.

    Attributes:
        source: where its pretrained weights came from.
        probe_seconds: wall time of the probe; that of fine-tuning is in the history.
    """

    network: SliceNetwork
    tuning: FineTuning
    source: str
    probe_seconds: float


def fit(fitting: Fitting, data: CovidCt) -> Fitted:
    """Train a network on the training split; validation chooses its epoch, and test is not looked at.

    Raises:
        TrainingError: the run folder holds a run of another recipe or of other data.
    """
    recipe, machine = fitting.recipe, fitting.machine
    hashes = {f"sha256 of {split.name} data": split.fingerprint().sha256 for split in data}
    claim_run_folder(fitting.run_folder, recipe.model_dump(mode="json") | hashes)
    seed_everything(recipe.seed, "weights")
    network = SliceNetwork(recipe)
    source = load_imagenet(network, recipe, fitting.weights)
    network = network.to(memory_format=torch.channels_last).to(machine.device)
    probe_seconds = _probe(fitting, network, data)
    tuning = FineTuning(network, recipe, machine, fitting.run_folder)
    if tuning.resume():
        say(f"{fitting.run_folder}: going on after epoch {tuning.history[-1].epoch}")
    tuning.run(data)
    return Fitted(network, tuning, source, probe_seconds)


def claim_run_folder(folder: Path, mine: Mapping[str, object]) -> None:
    """Write what a run belongs to into its folder, or check that it is what is there.

    Args:
        folder: of the run; made if it is not there.
        mine: the run's settings and the hashes of its data, as JSON has them.

    Raises:
        TrainingError: the folder holds a run of other settings or of other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    if not path.exists():
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(mine, indent=2)))
        return
    theirs = json.loads(path.read_text())
    for field in mine:
        if theirs.get(field) != mine[field]:
            raise TrainingError(
                f"{path}: this run has {field} = {theirs.get(field)}, not {mine[field]}; "
                "pass another --run folder, or --fresh to throw the old run away"
            )


def _probe(fitting: Fitting, network: SliceNetwork, data: CovidCt) -> float:
    """Fit the head, or take it from the run's folder; the seconds that it took."""
    if not fitting.recipe.probe:
        return 0.0
    path = fitting.run_folder / "probe.pt"
    if path.exists():
        state = torch.load(path, map_location=fitting.machine.device, weights_only=True)
        network.head.load_state_dict(state["head"])
        return float(state["seconds"])
    started = time.perf_counter()
    fit_probe(network, data.train, fitting.recipe, fitting.machine)
    seconds = time.perf_counter() - started
    state = {"head": network.head.state_dict(), "seconds": seconds}
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    say(f"linear probe: {seconds:.0f} s")
    return seconds
