"""predictions.csv of the recipe `report`: the probabilities of one run, slice by slice."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.covid_ct import CovidCt
from training.data.tables import read_rows
from training.report.scores import Probabilities
from training.run.atomic_write import write_csv


def write_predictions(path: Path, probabilities: Probabilities, data: CovidCt) -> None:
    """Write one row per slice of validation and of test: split, path, label, probability."""
    rows = (
        (split.name, labelled.path, labelled.label, f"{probability:.6f}")
        for split, predicted in ((data.val, probabilities.val), (data.test, probabilities.test))
        for labelled, probability in zip(split.slices, predicted.tolist(), strict=True)
    )
    write_csv(path, ("split", "path", "label", "probability"), rows)


def read_test_predictions(path: Path) -> NDArray[np.float64]:
    """Read the probabilities of the test split, in its order: float64 (N,)."""
    rows = read_rows(path, ("split", "probability"))
    return np.array([float(row["probability"]) for row in rows if row["split"] == "test"])
