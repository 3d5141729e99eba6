"""Out-of-fold answers: each slice is answered by a network that was not trained on its patient or paper."""

import time
from dataclasses import dataclass, replace
from typing import Final

import torch

from training.data.batches import plain_inputs
from training.data.covid_ct import CovidCt, Split
from training.data.folds import FoldPlan, assign_folds, each_fold
from training.learning.features import head_features, probe_features
from training.learning.fit import FitSettings, claim, fit, pretrained_network
from training.learning.linear_probe import fit_directions, held_out_logits, probe_settings
from training.recipe import FineTuningSettings
from training.run.atomic_write import write_atomically
from training.run.progress import say

_ANSWERS: Final = "out-of-fold.pt"
_CHECKPOINTS: Final = ("last.pt", "best.pt", "probe.pt")


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Answers to each slice by networks that were fitted to no slice of its group.

    Attributes:
        folds: fold that held each slice out: int64 (R, N) for R repeats.
        logits: float32 (R, E, N, 2); the first of E epochs is before fine-tuning, and the only one of a probe.
        variant: answers of a probe to the same slices altered: float32 (R, N, 2), or None.
        source: of the pretrained weights.
        seconds: wall time of all training, including interrupted processes.
    """

    folds: torch.Tensor
    logits: torch.Tensor
    variant: torch.Tensor | None
    source: str
    seconds: float


def out_of_fold_logits(settings: FitSettings, split: Split, plan: FoldPlan, variant: Split | None = None) -> OutOfFold:
    """Train one network per fold, and let each answer the slices of its fold.

    A probe's features are computed once for all folds. The directions of a covariance head need no labels and are those
    of all slices. Fine-tuning has one folder per fold, in which an interrupted fold resumes; a finished fold keeps its
    answers only. It runs all epochs of the recipe, and no fold chooses one.

    Args:
        settings: recipe, and the folder for all folds.
        split: the slices.
        plan: number of folds and repeats, and the groups of the slices.
        variant: the same slices altered, for a probe to answer too.

    Raises:
        TrainingError: no such folds are possible, or a folder belongs to another run.
    """
    folds = assign_folds(split, plan)
    if settings.recipe.fine_tuning:
        return _fine_tuned(settings, settings.recipe.fine_tuning, split, folds)
    return _probed(settings, split, folds, variant)


def _probed(settings: FitSettings, split: Split, folds: torch.Tensor, variant: Split | None) -> OutOfFold:
    recipe, machine = settings.recipe, settings.machine
    started = time.perf_counter()
    network, source = pretrained_network(settings)
    fit_directions(network, split, recipe, machine)
    features, labels = probe_features(network, split, recipe, machine)
    queries = [features[: len(split.slices)]]  # the plain view comes first
    if variant is not None:
        images = plain_inputs(variant, recipe.network.input_size)
        queries.append(head_features(network, images, machine, "features of the altered slices"))
    probe = probe_settings(recipe)
    repeats = [held_out_logits(features, labels, of_repeat, probe, queries) for of_repeat in folds]
    answers = torch.stack(repeats, dim=1)
    seconds = time.perf_counter() - started
    return OutOfFold(folds, answers[0].unsqueeze(1), None if variant is None else answers[1], source, seconds)


def _fine_tuned(settings: FitSettings, tuning: FineTuningSettings, split: Split, folds: torch.Tensor) -> OutOfFold:
    # an early stop would end folds at different epochs; patience beyond the last epoch never stops
    settings = replace(settings, recipe=settings.recipe.override(patience=tuning.epochs + 1))
    logits = torch.zeros(len(folds), tuning.epochs + 1, len(split.slices), 2)
    source, seconds = "", 0.0
    for repeat, fold, held_out in each_fold(folds):
        say(f"repeat {repeat}, fold {fold}: fine-tuning")
        folder = settings.run_folder / f"repeat-{repeat}-fold-{fold}"
        answers = _fine_tuned_fold(replace(settings, run_folder=folder), split, held_out)
        logits[repeat][:, held_out] = answers.logits
        source, seconds = answers.source, seconds + answers.seconds
    return OutOfFold(folds, logits, None, source, seconds)


@dataclass(frozen=True, slots=True)
class _FoldAnswers:
    """The stored answers of a fold: logits float32 (E, held-out slices, 2)."""

    logits: torch.Tensor
    source: str
    seconds: float


def _fine_tuned_fold(settings: FitSettings, split: Split, held_out: torch.Tensor) -> _FoldAnswers:
    """Read the answers of a finished fold, or train it; its checkpoints of 200 MB are deleted at the end."""
    data = CovidCt(split.where(~held_out), Split("val", split.where(held_out).slices), Split("test", ()))
    claim(settings, data)
    path = settings.run_folder / _ANSWERS
    if not path.exists():
        fitted = fit(settings, data)
        seconds = fitted.probe_seconds + fitted.epoch_seconds
        state = {"logits": torch.stack(fitted.val_logits), "source": fitted.source, "seconds": seconds}
        write_atomically(path, lambda temporary: torch.save(state, temporary))
    for name in _CHECKPOINTS:
        (settings.run_folder / name).unlink(missing_ok=True)
    return _FoldAnswers(**torch.load(path, weights_only=True))
