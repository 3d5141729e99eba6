"""Folds that no patient straddles, and the answers to each by a network that was not trained on it."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from service.files import write_atomically
from training.data import LABELS, CovidCt, Split, plain_batches
from training.errors import TrainingError
from training.fitting import Fitting, claim, fit, pretrained_network
from training.probe import fit_directions, head_features, pooled_views, solve
from training.progress import say

_ANSWERS: Final = "out-of-fold.pt"
_CHECKPOINTS: Final = ("last.pt", "best.pt", "probe.pt")


@dataclass(frozen=True, slots=True)
class Folding:
    """How slices are dealt to folds.

    Attributes:
        groups: of each slice; slices of one group are never parted.
        folds: how many parts.
        repeats: how often the slices are dealt anew.
    """

    groups: tuple[str, ...]
    folds: int = 5
    repeats: int = 3


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """The answers to every slice by networks that saw nothing of its group.

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


def deal(split: Split, folding: Folding) -> torch.Tensor:
    """The fold that holds each slice out, int64 (R, N).

    Groups stay whole and the classes are spread evenly; each repeat deals anew, by its own number as the seed.

    Raises:
        TrainingError: more folds than groups of a class, or a fold without one of the classes.
    """
    members = set(zip(split.labels.tolist(), folding.groups, strict=True))
    least = min(Counter(label for label, _ in members).values())
    if not 2 <= folding.folds <= least:
        raise TrainingError(f"--folds {folding.folds}: must be 2 to {least}, the patients of the class with fewer")
    if folding.repeats < 1:
        raise TrainingError(f"--repeats {folding.repeats}: must be 1 or more")
    folds = torch.zeros(folding.repeats, len(split.scans), dtype=torch.int64)
    for repeat in range(folding.repeats):
        dealer = StratifiedGroupKFold(folding.folds, shuffle=True, random_state=repeat)
        rows = np.zeros(len(split.scans))
        for fold, (_, held_out) in enumerate(dealer.split(rows, split.labels.numpy(), folding.groups)):
            folds[repeat, held_out] = fold
            if len(set(split.labels[held_out].tolist())) < len(LABELS):
                raise TrainingError(f"--folds {folding.folds}: a fold has slices of one class alone; ask for fewer")
    return folds


def _each(folds: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Repeat, fold and which slices it holds out, bool (N,)."""
    for repeat, of_repeat in enumerate(folds):
        for fold in range(int(of_repeat.max()) + 1):
            yield repeat, fold, of_repeat == fold


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
    answers = torch.zeros(len(asked), *folds.shape, 2)
    for repeat, fold, held_out in _each(folds):
        say(f"repeat {repeat}, fold {fold}: probe")
        seen = ~held_out.repeat(recipe.probe_views)
        weight, bias = solve(pooled[seen].numpy(), labels[seen].numpy(), recipe.probe_strength / recipe.probe_views)
        for row, features in zip(answers, asked, strict=True):
            margin = torch.from_numpy(features[held_out].numpy() @ weight + bias).float()
            row[repeat, held_out] = torch.stack([-margin, margin], dim=1) / 2
    seconds = time.perf_counter() - started
    return OutOfFold(folds, answers[0].unsqueeze(1), None if variant is None else answers[1], source, seconds)


def _fine_tuned(fitting: Fitting, split: Split, folds: torch.Tensor) -> OutOfFold:
    recipe = fitting.recipe
    # an early stop would cut folds at different epochs, and patience beyond the last epoch never ends
    fitting = replace(fitting, recipe=recipe.override(patience=recipe.epochs + 1))
    logits = torch.zeros(len(folds), recipe.epochs + 1, len(split.scans), 2)
    source, seconds = "", 0.0
    for repeat, fold, held_out in _each(folds):
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
    data = CovidCt(_part(split, ~held_out, "train"), _part(split, held_out, "val"), Split("test", ()))
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


def _part(split: Split, rows: torch.Tensor, name: Literal["train", "val"]) -> Split:
    return Split(name, tuple(scan for scan, chosen in zip(split.scans, rows.tolist(), strict=True) if chosen))
