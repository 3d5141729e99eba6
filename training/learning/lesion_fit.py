"""Training stages of the recipe `lesion`, each resumed from the run folder: finder, left-out network, network."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training.data.ct_slices import CtSlice
from training.data.left_out import choose_left_out, read_left_out, write_left_out
from training.learning.appearance_fit import fit_appearance
from training.learning.lesion_samples import LesionSamples
from training.learning.lesion_stages import LesionStage
from training.learning.lesion_training import LesionTraining, train_lesion_network
from training.learning.lung_crops import FoundLungs, resumed_lungs
from training.learning.lung_pictures import LungPictures
from training.learning.small_training import SmallTraining, train_lung_finder, train_view_checker
from training.learning.view_pictures import ViewPictures
from training.lesion_recipe import LesionRecipe
from training.network.lesion_network import AppearanceProbe, LesionNetwork
from training.network.lung_finder import LungFinder
from training.network.view_checker import ViewChecker
from training.network.weights import load_features
from training.run.machine import Machine
from training.run.processes import current
from training.run.seeding import derive_seed, seed_everything
from training.run.stages import computed_once, resumed_network

_SOURCE: Final = "covid-ct"

_LARGE: Final = 500
"""Fewest labelled slices of a source with both classes that has a separate share."""


@dataclass(frozen=True, slots=True)
class LesionFitSettings:
    """Settings of a training run.

    Attributes:
        recipe: hyperparameters.
        machine: device and number format.
        weights: ImageNet weights in torchvision's layout; None downloads torchvision's.
        run_folder: for checkpoints.
        leave_out: sources that are left out of the left-out network.
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
        finder: finds lungs; trained on slices with lung masks and on clear slices, without labels.
        views: detects turned and inverted slices and other windows; trained on all slices, without labels.
        left_out: whether each slice was left out of `left_out_network`.
        left_out_network: trained without these slices.
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
        settings: of the run.
        slices: all training slices; no test slice is among them.
        other: pictures that are not chest slices, for the finder.

    Raises:
        TrainingError: weights, a checkpoint or a left-out source can't be used.
    """
    recipe, folder = settings.recipe, settings.run_folder
    left_out = _left_out(settings, slices)
    left_out_network, network = (_new_network(settings, name) for name in ("left-out", "network"))
    weights = load_features(network.features, recipe.architecture, settings.weights)  # before minutes of training
    left_out_network.features.load_state_dict(network.features.state_dict())
    LesionStage.SMALL_NETWORKS.announce()
    finder = _finder(settings, slices, other)
    lungs = resumed_lungs(folder / "lungs.npz", finder, slices)
    views = _views(settings, slices, lungs, other)
    LesionStage.LEFT_OUT_NETWORK.announce()
    seen = [index for index, out in enumerate(left_out) if not out]
    left_out_network = _train(
        settings, left_out_network, slices, lungs, seen, folder / "left-out.ckpt", recipe.left_out_steps
    )
    LesionStage.NETWORK.announce()
    every = list(range(len(slices)))
    network = _train(settings, network, slices, lungs, every, folder / "network.ckpt", recipe.steps)
    LesionStage.APPEARANCE.announce()
    fitted = FittedLesions(
        finder,
        views,
        left_out,
        left_out_network,
        network,
        _appearance(settings, left_out_network, slices, lungs, seen, folder / "left-out-appearance.pt"),
        _appearance(settings, network, slices, lungs, every, folder / "appearance.pt"),
        weights,
    )
    current().leave_to_first()
    return fitted


def _new_network(settings: LesionFitSettings, name: str) -> LesionNetwork:
    seed_everything(settings.recipe.seed, name, "weights")
    return LesionNetwork()


def _left_out(settings: LesionFitSettings, slices: Sequence[CtSlice]) -> list[bool]:
    return computed_once(
        settings.run_folder / "left-out.csv",
        lambda path: read_left_out(path, slices),
        lambda path, left_out: write_left_out(path, slices, left_out),
        lambda: choose_left_out(slices, settings.leave_out),
    )


def _finder(settings: LesionFitSettings, slices: Sequence[CtSlice], other: Sequence[CtSlice]) -> LungFinder:
    recipe, path = settings.recipe, settings.run_folder / "finder.pt"

    def train() -> LungFinder:
        pictures = _lung_pictures(slices, other, np.random.default_rng(derive_seed(recipe.seed, "finder")))
        seed_everything(recipe.seed, "finder", "weights")
        return train_lung_finder(pictures, _small_training(settings, recipe.finder_steps, path)).cpu()

    return resumed_network(path, LungFinder(), train)


def _views(
    settings: LesionFitSettings, slices: Sequence[CtSlice], lungs: FoundLungs, other: Sequence[CtSlice]
) -> ViewChecker:
    recipe, path = settings.recipe, settings.run_folder / "views.pt"

    def train() -> ViewChecker:
        not_slices = _lung_pictures(slices, other, np.random.default_rng(derive_seed(recipe.seed, "views", "other")))
        pictures = ViewPictures(slices, lungs, not_slices, np.random.default_rng(derive_seed(recipe.seed, "views")))
        seed_everything(recipe.seed, "views", "weights")
        return train_view_checker(pictures, _small_training(settings, recipe.view_steps, path)).cpu()

    return resumed_network(path, ViewChecker(), train)


def _small_training(settings: LesionFitSettings, steps: int, path: Path) -> SmallTraining:
    recipe = settings.recipe
    checkpoint = path.with_suffix(".ckpt")
    return SmallTraining(steps, recipe.finder_batch_size, recipe.finder_learning_rate, settings.machine, checkpoint)


def _lung_pictures(slices: Sequence[CtSlice], other: Sequence[CtSlice], rng: np.random.Generator) -> LungPictures:
    with_lungs = [slice_ for slice_ in slices if slice_.kind in ("lesions", "clear") or slice_.lung is not None]
    return LungPictures(with_lungs, other, rng)


def _train(
    settings: LesionFitSettings,
    network: LesionNetwork,
    slices: Sequence[CtSlice],
    lungs: FoundLungs,
    seen: Sequence[int],
    checkpoint: Path,
    steps: int,
) -> LesionNetwork:
    recipe = settings.recipe
    seen_slices = [slices[index] for index in seen]
    seen_lungs = FoundLungs(lungs.lung[list(seen)], lungs.box[list(seen)])
    shares = source_shares(seen_slices, recipe.covid_ct_share)
    rng = np.random.default_rng(derive_seed(recipe.seed, checkpoint.stem))
    samples = LesionSamples(seen_slices, seen_lungs, shares, recipe.box_size, rng)
    training = LesionTraining(
        steps=steps,
        batch_size=recipe.batch_size,
        warm_up=recipe.warm_up_steps,
        cool_down=recipe.cool_down_steps,
        learning_rate=recipe.learning_rate,
        frozen=recipe.frozen_layers,
        machine=settings.machine,
        checkpoint=checkpoint,
    )
    return train_lesion_network(network, samples, training).cpu()


def _appearance(
    settings: LesionFitSettings,
    network: LesionNetwork,
    slices: Sequence[CtSlice],
    lungs: FoundLungs,
    seen: Sequence[int],
    path: Path,
) -> AppearanceProbe:
    recipe = settings.recipe

    def fit() -> AppearanceProbe:
        shares = source_shares([slices[index] for index in seen], recipe.covid_ct_share)
        rng = np.random.default_rng(derive_seed(recipe.seed, path.stem))
        return fit_appearance(network, slices, lungs, seen, shares, recipe.box_size, settings.machine, rng)

    return resumed_network(path, AppearanceProbe(network.probed_channels), fit, by_all=True)


def source_shares(slices: Sequence[CtSlice], covid_ct: float) -> dict[str | None, float]:
    """Compute the shares of the labelled sources: COVID-CT, each large source with both classes, and all others."""
    labels: dict[str, set[int]] = {}
    counts: Counter[str] = Counter()
    for slice_ in slices:
        if slice_.kind == "labelled" and slice_.label is not None:
            labels.setdefault(slice_.source, set()).add(slice_.label)
            counts[slice_.source] += 1
    large = [
        name for name, present in labels.items() if len(present) == 2 and counts[name] >= _LARGE and name != _SOURCE
    ]
    shares: dict[str | None, float] = {_SOURCE: covid_ct, None: 0.4 * (1 - covid_ct)}
    return shares | {name: 0.6 * (1 - covid_ct) / len(large) for name in large}
