"""Training stages of the recipe `lesion`, each resumed from the run folder: finder, left-out network, network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training.data.ct_slices import CtSlice
from training.data.left_out import choose_left_out
from training.learning.appearance_fit import fit_appearance
from training.learning.lesion_samples import LesionSamples, TrainingSet
from training.learning.lesion_stages import LesionStage
from training.learning.lesion_training import LesionTraining, train_lesion_network
from training.learning.lung_crops import FoundLungs, find_lungs
from training.learning.lung_pictures import LungPictures
from training.learning.other_pictures import OtherPictures
from training.learning.small_training import SmallTraining, train_lung_finder, train_view_checker
from training.learning.view_pictures import ViewPictures
from training.lesion_recipe import LesionRecipe
from training.network.lesion_network import AppearanceProbe, LesionNetwork
from training.network.lung_finder import LungFinder
from training.network.view_checker import ViewChecker
from training.network.weights import load_features
from training.run.job import Job
from training.run.processes import current
from training.run.seeding import derive_seed, seed_everything
from training.run.stages import resumed_arrays, resumed_network

_COVID_CT: Final = "covid-ct"

_LARGE: Final = 500
"""Fewest labelled slices of a source with both classes that has a separate share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionJob(Job[LesionRecipe]):
    """Settings of a run of the recipe `lesion`.

    Attributes:
        leave_out: sources that are left out of the left-out network.
        inputs: SHA-256 of the inputs by name.
    """

    leave_out: tuple[str, ...]
    inputs: Mapping[str, str]

    def generator(self, *names: str) -> np.random.Generator:
        """Return the run's random generator for one purpose."""
        return np.random.default_rng(derive_seed(self.recipe.seed, *names))


@dataclass(frozen=True, slots=True)
class FittedNetwork:
    """A trained lesion network, and the probe fitted to its maps."""

    network: LesionNetwork
    appearance: AppearanceProbe


@dataclass(frozen=True, slots=True)
class FittedLesions:
    """The trained networks.

    Attributes:
        finder: finds lungs; trained on slices with lung masks and on clear slices, without labels.
        views: detects turned and inverted slices and other windows; trained on all slices, without labels.
        everything: all slices with their lungs.
        left_out: whether each slice was left out of the `judged` network.
        judged: network without the left-out slices.
        shipped: network on all slices.
        weights: where the pretrained weights came from.
    """

    finder: LungFinder
    views: ViewChecker
    everything: TrainingSet
    left_out: list[bool]
    judged: FittedNetwork
    shipped: FittedNetwork
    weights: str


def fit_lesions(job: LesionJob, slices: Sequence[CtSlice], other: Sequence[CtSlice]) -> FittedLesions:
    """Train the small networks, a network without the left-out sources, and the network on all training slices."""
    recipe = job.recipe
    left_out = choose_left_out(slices, job.leave_out)
    judged, shipped = (_new_network(job, name) for name in ("left-out", "network"))
    _, weights = load_features(shipped.features, recipe.architecture, job.weights)  # before minutes of training
    judged.features.load_state_dict(shipped.features.state_dict())
    LesionStage.SMALL_NETWORKS.announce()
    finder = _finder(job, slices, other)
    lungs = resumed_arrays(job.run_folder / "lungs.npz", FoundLungs, lambda: find_lungs(finder, slices))
    views = _views(job, slices, lungs, other)
    everything = _training_set(recipe, slices, lungs, [True] * len(slices))
    seen = _training_set(recipe, slices, lungs, [not out for out in left_out])
    LesionStage.LEFT_OUT_NETWORK.announce()
    judged = _train(job, judged, seen, "left-out.ckpt", recipe.left_out_steps)
    LesionStage.NETWORK.announce()
    shipped = _train(job, shipped, everything, "network.ckpt", recipe.steps)
    LesionStage.APPEARANCE.announce()
    fitted = FittedLesions(
        finder,
        views,
        everything,
        left_out,
        FittedNetwork(judged, _appearance(job, judged, seen, "left-out-appearance.pt")),
        FittedNetwork(shipped, _appearance(job, shipped, everything, "appearance.pt")),
        weights,
    )
    current().leave_to_first()
    return fitted


def _new_network(job: LesionJob, name: str) -> LesionNetwork:
    seed_everything(job.recipe.seed, name, "weights")
    return LesionNetwork()


def _finder(job: LesionJob, slices: Sequence[CtSlice], other: Sequence[CtSlice]) -> LungFinder:
    recipe, path = job.recipe, job.run_folder / "finder.pt"

    def train() -> LungFinder:
        pictures = LungPictures(_with_lungs(slices), other, job.generator("finder"))
        seed_everything(recipe.seed, "finder", "weights")
        return train_lung_finder(pictures, _small_training(job, recipe.finder_steps, path)).cpu()

    return resumed_network(path, LungFinder(), train)


def _views(job: LesionJob, slices: Sequence[CtSlice], lungs: FoundLungs, other: Sequence[CtSlice]) -> ViewChecker:
    recipe, path = job.recipe, job.run_folder / "views.pt"

    def train() -> ViewChecker:
        not_slices = OtherPictures(_with_lungs(slices), other, job.generator("views", "other"))
        pictures = ViewPictures(slices, lungs, not_slices, job.generator("views"))
        seed_everything(recipe.seed, "views", "weights")
        return train_view_checker(pictures, _small_training(job, recipe.view_steps, path)).cpu()

    return resumed_network(path, ViewChecker(), train)


def _small_training(job: LesionJob, steps: int, path: Path) -> SmallTraining:
    recipe = job.recipe
    checkpoint = path.with_suffix(".ckpt")
    return SmallTraining(steps, recipe.finder_batch_size, recipe.finder_learning_rate, job.machine, checkpoint)


def _with_lungs(slices: Sequence[CtSlice]) -> list[CtSlice]:
    """Choose the slices whose lungs are drawn, or can be segmented by threshold."""
    return [slice_ for slice_ in slices if slice_.kind in ("lesions", "clear") or slice_.lung is not None]


def _training_set(
    recipe: LesionRecipe, slices: Sequence[CtSlice], lungs: FoundLungs, is_seen: Sequence[bool]
) -> TrainingSet:
    seen = [slice_ for slice_, inside in zip(slices, is_seen, strict=True) if inside]
    rows = np.asarray(is_seen)
    return TrainingSet(seen, FoundLungs(lungs.lung[rows], lungs.box[rows]), source_shares(seen, recipe.covid_ct_share))


def _train(job: LesionJob, network: LesionNetwork, seen: TrainingSet, file: str, steps: int) -> LesionNetwork:
    checkpoint = job.run_folder / file
    samples = LesionSamples(seen, job.recipe.box_size, job.generator(checkpoint.stem))
    return train_lesion_network(network, samples, LesionTraining(job.recipe, steps, job.machine, checkpoint)).cpu()


def _appearance(job: LesionJob, network: LesionNetwork, seen: TrainingSet, file: str) -> AppearanceProbe:
    path = job.run_folder / file

    def fit() -> AppearanceProbe:
        return fit_appearance(network, seen, job.recipe.box_size, job.machine, job.generator(path.stem))

    return resumed_network(path, AppearanceProbe(network.probed_channels), fit, by_all=True)


def source_shares(slices: Sequence[CtSlice], covid_ct: float) -> dict[str | None, float]:
    """Compute the shares of the labelled sources: COVID-CT, each large source with both classes, and all others."""
    labels = Counter((slice_.source, slice_.label) for slice_ in slices if slice_.kind == "labelled")
    large = [
        source
        for source in dict.fromkeys(source for source, _ in labels)
        if source != _COVID_CT
        and labels[source, 0]
        and labels[source, 1]
        and labels[source, 0] + labels[source, 1] >= _LARGE
    ]
    shares: dict[str | None, float] = {_COVID_CT: covid_ct, None: 0.4 * (1 - covid_ct)}
    return shares | {source: 0.6 * (1 - covid_ct) / len(large) for source in large}
