"""Slices dealt to folds that no patient, or no paper, straddles."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from training.data.covid_ct import LABELS, Split
from training.data.papers import group_by_paper
from training.data.patients import read_patients
from training.errors import TrainingError
from training.recipe import Together


@dataclass(frozen=True, slots=True)
class Folding:
    """How slices are dealt to folds.

    Attributes:
        groups: of each slice; slices of one group are never parted.
        folds: how many parts.
        repeats: how often the slices are dealt anew.
        together: what the groups are.
    """

    groups: tuple[str, ...]
    folds: int = 5
    repeats: int = 3
    together: Together = "patient"


def read_groups(patients: Path, split: Split, together: Together) -> tuple[str, ...]:
    """The group of every slice, in the order of the split.

    Args:
        patients: table of whose slices they are, as `read_patients` takes it.

    Raises:
        TrainingError: the table can't be read, or says nothing of a slice.
    """
    groups = read_patients(patients, split)
    return group_by_paper(split, groups) if together == "paper" else groups


def deal(split: Split, folding: Folding) -> torch.Tensor:
    """The fold that holds each slice out, int64 (R, N).

    Groups stay whole and the classes are spread evenly; each repeat deals anew, by its own number as the seed.

    Raises:
        TrainingError: more folds than groups of a class, or a fold without one of the classes.
    """
    members = set(zip(split.labels.tolist(), folding.groups, strict=True))
    least = min(Counter(label for label, _ in members).values())
    if not 2 <= folding.folds <= least:
        raise TrainingError(
            f"--folds {folding.folds}: must be 2 to {least}, the {folding.together}s of the class with fewer"
        )
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


def each_fold(folds: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Repeat, fold and which slices it holds out, bool (N,)."""
    for repeat, of_repeat in enumerate(folds):
        for fold in range(int(of_repeat.max()) + 1):
            yield repeat, fold, of_repeat == fold
