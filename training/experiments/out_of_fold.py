"""The answers to every slice by networks that were not trained on its patient: cross-validation's raw material."""

import time
from dataclasses import dataclass, replace
from typing import Final

import torch

from training.data.batches import plain_batches
from training.data.covid_ct import CovidCt, Split
from training.data.folds import Folding, deal, each_fold
from training.errors import TrainingError
from training.learning.features import head_features, pooled_views
from training.learning.fit import Fitting, claim, fit, pretrained_network
from training.learning.linear_probe import fit_directions, held_out_logits
from training.run.atomic_write import write_atomically
from training.run.progress import say

_ANSWERS: Final = "out-of-fold.pt"
_CHECKPOINTS: Final = ("last.pt", "best.pt", "probe.pt")


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """The answers to every slice by networks that were fitted to nothing of its group.

    Attributes:
        folds: the fold that held each slice out: int64 (R, N) for R repeats.
        logits: float32 (R, E, N, 2); the first of E epochs is before fine-tuning, and the only one of a probe.
        variant: a probe's answers to the same slices altered: float32 (R, N, 2); None where none were given.
        source: where the pretrained weights came from.
        seconds: wall time of all training, over resumed processes.
    """

    folds: torch.Tensor
    logits: torch.Tensor
    variant: torch.Tensor | None
    source: str
    seconds: float


def out_of_fold_logits(fitting: Fitting, split: Split, folding: Folding, variant: Split | None = None) -> OutOfFold:
    """Train once a fold, and ask each network about the slices that it did not see.

    A probe's features are computed once for all folds, and a covariance head's directions, which need no labels, are
    those of all slices. Fine-tuning has a folder a fold in the run folder: interrupted,
    it goes on, and a fold that has ended keeps its answers alone. It runs every epoch of the recipe, and no fold
    chooses one.

    Args:
        fitting: the recipe, and the folder for all folds.
        split: the slices.
        folding: how they are dealt.
        variant: the same slices altered, for a probe to be asked about too.

    Raises:
        TrainingError: the slices can't be dealt so, nothing is trained, or a folder holds another run.
    """
    folds = deal(split, folding)
    if fitting.recipe.epochs:
        return _fine_tuned(fitting, split, folds)
    if fitting.recipe.probe:
        return _probed(fitting, split, folds, variant)
    raise TrainingError(f"recipe {fitting.recipe.name} has neither a probe nor epochs: pass --epochs, 1 or more")


def _probed(fitting: Fitting, split: Split, folds: torch.Tensor, variant: Split | None) -> OutOfFold:
    recipe, machine = fitting.recipe, fitting.machine
    started = time.perf_counter()
    network, source = pretrained_network(fitting)
    fit_directions(network, split, recipe, machine)
    pooled, labels = pooled_views(network, split, recipe, machine)
    asked = [pooled[: len(split.scans)]]  # the plain view comes first
    if variant is not None:
        batches = plain_batches(variant, recipe.input_size)
        asked.append(head_features(network, batches, machine, "features of the altered slices"))
    repeats = [held_out_logits(pooled, labels, of_repeat, recipe, asked) for of_repeat in folds]
    answers = torch.stack(repeats, dim=1)
    seconds = time.perf_counter() - started
    return OutOfFold(folds, answers[0].unsqueeze(1), None if variant is None else answers[1], source, seconds)


def _fine_tuned(fitting: Fitting, split: Split, folds: torch.Tensor) -> OutOfFold:
    recipe = fitting.recipe
    # an early stop would cut folds at different epochs, and patience beyond the last epoch never ends
    fitting = replace(fitting, recipe=recipe.override(patience=recipe.epochs + 1))
    logits = torch.zeros(len(folds), recipe.epochs + 1, len(split.scans), 2)
    source, seconds = "", 0.0
    for repeat, fold, held_out in each_fold(folds):
        say(f"repeat {repeat}, fold {fold}: fine-tuning")
        folder = fitting.run_folder / f"repeat-{repeat}-fold-{fold}"
        answers = _fine_tuned_fold(replace(fitting, run_folder=folder), split, held_out)
        logits[repeat][:, held_out] = answers.logits
        source, seconds = answers.source, seconds + answers.seconds
    return OutOfFold(folds, logits, None, source, seconds)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What is kept of a fold: logits float32 (E, held-out slices, 2)."""

    logits: torch.Tensor
    source: str
    seconds: float


def _fine_tuned_fold(fitting: Fitting, split: Split, held_out: torch.Tensor) -> _Answers:
    """The fold's answers, from its folder if it has ended; its checkpoints, 200 MB, go then."""
    data = CovidCt(split.where(~held_out), Split("val", split.where(held_out).scans), Split("test", ()))
    claim(fitting, data)
    path = fitting.run_folder / _ANSWERS
    if not path.exists():
        fitted = fit(fitting, data)
        tuning = fitted.tuning
        seconds = fitted.probe_seconds + sum(record.seconds for record in tuning.history)
        state = {"logits": torch.stack(tuning.val_logits), "source": fitted.source, "seconds": seconds}
        write_atomically(path, lambda temporary: torch.save(state, temporary))
    for name in _CHECKPOINTS:
        (fitting.run_folder / name).unlink(missing_ok=True)
    return _Answers(**torch.load(path, weights_only=True))
