"""Assignment of slices to folds that keep the slices of a patient, or of a paper, together."""

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
from training.recipe import GroupBy


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """Number of folds and repeats, and the groups that stay in one fold.

    Attributes:
        groups: group of each slice.
        folds: number of parts.
        repeats: number of assignments, each with another seed.
        group_by: kind of the groups, for messages.
    """

    groups: tuple[str, ...]
    folds: int = 5
    repeats: int = 3
    group_by: GroupBy = "patient"


def read_groups(patients: Path, split: Split, group_by: GroupBy) -> tuple[str, ...]:
    """Read the group of each slice, in the order of the split.

    Args:
        patients: table of patients in the format of `read_patients`.

    Raises:
        TrainingError: the table can't be read, or lacks a slice.
    """
    groups = read_patients(patients, split)
    return group_by_paper(split, groups) if group_by == "paper" else groups


def assign_folds(split: Split, plan: FoldPlan) -> torch.Tensor:
    """Return the fold that holds each slice out: int64 (R, N) for R repeats.

    Groups stay whole and the classes are spread evenly. The seed of a repeat is its number.

    Raises:
        TrainingError: more folds than groups of a class, or a fold without one of the classes.
    """
    members = set(zip(split.labels.tolist(), plan.groups, strict=True))
    least = min(Counter(label for label, _ in members).values())
    if not 2 <= plan.folds <= least:
        raise TrainingError(
            f"--folds {plan.folds}: must be 2 to {least}, the number of {plan.group_by}s in the smaller class"
        )
    if plan.repeats < 1:
        raise TrainingError(f"--repeats {plan.repeats}: must be 1 or more")
    folds = torch.zeros(plan.repeats, len(split.slices), dtype=torch.int64)
    for repeat in range(plan.repeats):
        assignment = StratifiedGroupKFold(plan.folds, shuffle=True, random_state=repeat)
        rows = np.zeros(len(split.slices))
        for fold, (_, held_out) in enumerate(assignment.split(rows, split.labels.numpy(), plan.groups)):
            folds[repeat, held_out] = fold
            if len(set(split.labels[held_out].tolist())) < len(LABELS):
                raise TrainingError(f"--folds {plan.folds}: a fold has slices of one class only; pass fewer folds")
    return folds


def each_fold(folds: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield repeat, fold and the slices that it holds out, bool (N,)."""
    for repeat, of_repeat in enumerate(folds):
        for fold in range(int(of_repeat.max()) + 1):
            yield repeat, fold, of_repeat == fold
