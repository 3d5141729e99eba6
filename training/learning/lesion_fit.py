"""The training stages of the recipe `lesion`, each resumed from the run folder: finder, left-out network, network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from training.data.ct_slices import CtSlice
from training.data.left_out import choose_left_out, read_left_out, write_left_out
from training.learning.appearance_fit import fit_appearance
from training.learning.lesion_samples import LesionSamples
from training.learning.lesion_training import LesionTraining, train_lesion_network
from training.learning.lung_crops import FoundLungs, resumed_lungs
from training.learning.lung_pictures import LungPictures
from training.learning.lung_training import LungTraining, train_lung_finder
from training.learning.view_pictures import ViewPictures
from training.learning.view_training import ViewTraining, train_view_checker
from training.lesion_recipe import LesionRecipe
from training.network.lesion_network import AppearanceProbe, LesionNetwork
from training.network.lung_finder import LungFinder
from training.network.view_checker import ViewChecker
from training.network.weights import load_features
from training.run.atomic_write import write_atomically
from training.run.machine import Machine
from training.run.processes import current, first_only
from training.run.progress import stage
from training.run.run_folder import restoring
from training.run.seeding import derive_seed, seed_everything

_SOURCE: Final = "covid-ct"

STAGES: Final = 9
"""Of a whole run: four here, then left-out answers, test, refusals, export, and a check of the files."""


@dataclass(frozen=True, slots=True)
class LesionFitSettings:
    """Settings of a training run.

    Attributes:
        recipe: hyperparameters.
        machine: device and number format.
        weights: ImageNet weights in torchvision's layout; None downloads torchvision's.
        run_folder: for checkpoints.
        leave_out: sources that the left-out network never sees.
    """

    recipe: LesionRecipe
    machine: Machine
    weights: Path | None
    run_folder: Path
    leave_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FittedLesions:
    """The trained networks.

    Attributes:
        finder: finds lungs; has seen slices with lung masks and clear slices, no labels.
        views: tells turned and inverted slices and other windows; has seen all slices, no labels.
        left_out: whether each slice was left out of `left_out_network`.
        left_out_network: trained without them; answers them.
        network: trained on all slices.
        left_out_appearance, appearance: fitted to the maps of each network.
        weights: where the pretrained weights came from.
    """

    finder: LungFinder
    views: ViewChecker
    left_out: list[bool]
    left_out_network: LesionNetwork
    network: LesionNetwork
    left_out_appearance: AppearanceProbe
    appearance: AppearanceProbe
    weights: str


def fit_lesions(settings: LesionFitSettings, slices: Sequence[CtSlice], other: Sequence[CtSlice]) -> FittedLesions:
    """Train the finder, a network without the left-out sources, and the network on all of them.

    Args:
        settings: see there.
        slices: all training slices; no test slice is among them.
        other: pictures that are no chest slices, for the finder.

    Raises:
        TrainingError: weights, a checkpoint or a left-out source can't be used.
    """
    recipe, folder = settings.recipe, settings.run_folder
    left_out = _left_out(settings, slices)
    left_out_network, network = (_new_network(settings, name) for name in ("left-out", "network"))
    weights = load_features(network.features, recipe.architecture, settings.weights)  # before minutes of training
    left_out_network.features.load_state_dict(network.features.state_dict())
    stage(1, STAGES, "the lung finder and the view checker")
    finder = _finder(settings, slices, other)
    found = resumed_lungs(folder / "lungs.npz", finder, slices)
    views = _views(settings, slices, found, other)
    stage(2, STAGES, f"a network without {sum(left_out)} left-out slices")
    seen = [index for index, out in enumerate(left_out) if not out]
    left_out_network = _train(
        settings, left_out_network, slices, found, seen, folder / "left-out.ckpt", recipe.left_out_steps
    )
    stage(3, STAGES, f"the network on all {len(slices)} slices")
    every = list(range(len(slices)))
    network = _train(settings, network, slices, found, every, folder / "network.ckpt", recipe.steps)
    stage(4, STAGES, "the appearance of lungs")
    fitted = FittedLesions(
        finder,
        views,
        left_out,
        left_out_network,
        network,
        _appearance(settings, left_out_network, slices, found, seen, folder / "left-out-appearance.pt"),
        _appearance(settings, network, slices, found, every, folder / "appearance.pt"),
        weights,
    )
    current().leave_to_first()
    return fitted


def _new_network(settings: LesionFitSettings, name: str) -> LesionNetwork:
    seed_everything(settings.recipe.seed, name, "weights")
    return LesionNetwork()


def _left_out(settings: LesionFitSettings, slices: Sequence[CtSlice]) -> list[bool]:
    path = settings.run_folder / "left-out.csv"
    if current().lacks(path):
        first_only(write_left_out)(path, slices, choose_left_out(slices, settings.leave_out))
    return read_left_out(path, slices)


def _finder(settings: LesionFitSettings, slices: Sequence[CtSlice], other: Sequence[CtSlice]) -> LungFinder:
    path = settings.run_folder / "finder.pt"
    if current().lacks(path):
        _write_finder(path, settings, slices, other)
    finder = LungFinder()
    with restoring(path):
        finder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return finder.eval()


@first_only
def _write_finder(path: Path, settings: LesionFitSettings, slices: Sequence[CtSlice], other: Sequence[CtSlice]) -> None:
    recipe = settings.recipe
    pictures = _lung_pictures(slices, other, np.random.default_rng(derive_seed(recipe.seed, "finder")))
    seed_everything(recipe.seed, "finder", "weights")
    training = LungTraining(
        recipe.finder_steps,
        recipe.finder_batch_size,
        recipe.finder_learning_rate,
        settings.machine,
        path.with_suffix(".ckpt"),
    )
    finder = train_lung_finder(pictures, training).cpu()
    write_atomically(path, lambda file: torch.save(finder.state_dict(), file))


def _lung_pictures(slices: Sequence[CtSlice], other: Sequence[CtSlice], rng: np.random.Generator) -> LungPictures:
    with_lungs = [each for each in slices if each.kind in ("lesions", "clear") or each.lung is not None]
    return LungPictures(with_lungs, other, rng)


def _views(
    settings: LesionFitSettings, slices: Sequence[CtSlice], found: FoundLungs, other: Sequence[CtSlice]
) -> ViewChecker:
    path = settings.run_folder / "views.pt"
    if current().lacks(path):
        _write_views(path, settings, slices, found, other)
    views = ViewChecker()
    with restoring(path):
        views.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return views.eval()


@first_only
def _write_views(
    path: Path, settings: LesionFitSettings, slices: Sequence[CtSlice], found: FoundLungs, other: Sequence[CtSlice]
) -> None:
    recipe = settings.recipe
    no_slices = _lung_pictures(slices, other, np.random.default_rng(derive_seed(recipe.seed, "views", "other")))
    pictures = ViewPictures(slices, found, no_slices, np.random.default_rng(derive_seed(recipe.seed, "views")))
    seed_everything(recipe.seed, "views", "weights")
    training = ViewTraining(recipe.view_steps, recipe.finder_batch_size, recipe.finder_learning_rate, settings.machine)
    views = train_view_checker(pictures, training).cpu()
    write_atomically(path, lambda file: torch.save(views.state_dict(), file))


def _train(
    settings: LesionFitSettings,
    network: LesionNetwork,
    slices: Sequence[CtSlice],
    found: FoundLungs,
    seen: Sequence[int],
    checkpoint: Path,
    steps: int,
) -> LesionNetwork:
    recipe = settings.recipe
    own = FoundLungs(found.lung[list(seen)], found.box[list(seen)])
    labelled = [slices[index] for index in seen]
    shares = source_shares(labelled, recipe.covid_ct_share)
    rng = np.random.default_rng(derive_seed(recipe.seed, checkpoint.stem))
    samples = LesionSamples(labelled, own, shares, recipe.box_size, rng)
    training = LesionTraining(
        steps=steps,
        batch_size=recipe.batch_size,
        warm_up=recipe.warm_up_steps,
        cool_down=recipe.cool_down_steps,
        learning_rate=recipe.learning_rate,
        frozen=recipe.frozen_layers,
        hint=recipe.hint_weight,
        machine=settings.machine,
        checkpoint=checkpoint,
    )
    return train_lesion_network(network, samples, training).cpu()


def _appearance(
    settings: LesionFitSettings,
    network: LesionNetwork,
    slices: Sequence[CtSlice],
    found: FoundLungs,
    seen: Sequence[int],
    path: Path,
) -> AppearanceProbe:
    if current().lacks(path):
        recipe = settings.recipe
        shares = source_shares([slices[index] for index in seen], recipe.covid_ct_share)
        rng = np.random.default_rng(derive_seed(recipe.seed, path.stem))
        fitted = fit_appearance(network, slices, found, seen, shares, recipe.box_size, settings.machine, rng)
        first_only(write_atomically)(path, lambda file: torch.save(fitted.state_dict(), file))
    probe = AppearanceProbe(network.map_channels)
    with restoring(path):
        probe.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return probe.eval()


def source_shares(slices: Sequence[CtSlice], covid_ct: float) -> dict[str | None, float]:
    """Shares of the labelled sources: COVID-CT, then the large sources with both classes, then all others together."""
    labels: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    for each in slices:
        if each.kind == "labelled" and each.label is not None:
            labels.setdefault(each.source, set()).add(each.label)
            counts[each.source] = counts.get(each.source, 0) + 1
    large = [name for name, own in labels.items() if len(own) == 2 and counts[name] >= 500 and name != _SOURCE]
    shares: dict[str | None, float] = {_SOURCE: covid_ct, None: 0.4 * (1 - covid_ct)}
    return shares | {name: 0.6 * (1 - covid_ct) / len(large) for name in large}
