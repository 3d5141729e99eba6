"""predictions.csv: the probabilities of one run, slice by slice."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.covid_ct import CovidCt
from training.data.ct_slices import CtSlice
from training.evaluation.answers import Answers
from training.evaluation.report_scores import Probabilities
from training.run.atomic_write import write_csv


@dataclass(frozen=True, slots=True)
class AnsweredSet:
    """Slices with the answers of a network of the recipe `lesion`.

    Attributes:
        name: of the set.
        slices: N of them.
        answers: to these slices.
        probability: (N,), calibrated.
    """

    name: str
    slices: Sequence[CtSlice]
    answers: Answers
    probability: NDArray[np.float64] | NDArray[np.float32]


def write_answers(path: Path, sets: Sequence[AnsweredSet]) -> None:
    """Write one row per slice of the recipe `lesion`: set, source, file, label, probability, lung_involvement."""
    rows = (
        (own.name, each.source, each.name, each.label, f"{p:.6f}", f"{share:.4f}")
        for own in sets
        for each, p, share in zip(own.slices, own.probability, own.answers.involvement[:, 0], strict=True)
    )
    write_csv(path, ("set", "source", "file", "label", "probability", "lung_involvement"), rows)


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
