"""predictions.csv: the probabilities of one run, slice by slice."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data.covid_ct import CovidCt
from training.data.ct_slices import CtSlice, has_lesion
from training.evaluation.answers import Answers
from training.evaluation.report_scores import Probabilities
from training.run.atomic_write import write_csv

COLUMNS: Final = (
    *("set", "source", "group", "file", "label", "finding", "lesion"),
    *("lesion_probability", "covid_given_lesion", "probability", "lung_involvement"),
)
"""Columns of predictions.csv of the recipe `lesion`."""


@dataclass(frozen=True, slots=True)
class AnsweredSet:
    """Slices with the answers of a network of the recipe `lesion`.

    Attributes:
        name: of the set.
        slices: N of them.
        answers: to these slices, calibrated.
    """

    name: str
    slices: Sequence[CtSlice]
    answers: Answers


def write_answers(path: Path, sets: Sequence[AnsweredSet]) -> None:
    """Write one row per slice of the recipe `lesion`, with what it shows and every answer to it.

    `finding` is that of a slice without COVID, empty where it is not known; `lesion` whether a drawn mask has one.
    """
    rows = (
        (
            *(own.name, each.source, each.group, each.name, each.label, each.finding),
            "" if each.lesion is None else int(has_lesion(each.lesion)),
            *(f"{own.answers.lesion_probability[i]:.6f}", f"{own.answers.covid_given_lesion[i]:.6f}"),
            *(f"{own.answers.probability[i]:.6f}", f"{own.answers.involvement[i, 0]:.4f}"),
        )
        for own in sets
        for i, each in enumerate(own.slices)
    )
    write_csv(path, COLUMNS, rows)


def write_predictions(path: Path, probabilities: Probabilities, data: CovidCt) -> None:
    """Write one row per slice of validation and of test: split, path, label, probability."""
    rows = (
        (split.name, labelled.path, labelled.label, f"{probability:.6f}")
        for split, answers in ((data.val, probabilities.val), (data.test, probabilities.test))
        for labelled, probability in zip(split.slices, answers.tolist(), strict=True)
    )
    write_csv(path, ("split", "path", "label", "probability"), rows)


def read_test_predictions(path: Path) -> NDArray[np.float64]:
    """Read the probabilities of the test split, in its order: float64 (N,)."""
    with path.open(encoding="utf-8", newline="") as file:
        return np.array([float(row["probability"]) for row in csv.DictReader(file) if row["split"] == "test"])
