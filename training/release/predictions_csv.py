"""predictions.csv: the probabilities of one run of the report, slice by slice."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.covid_ct import CovidCt
from training.evaluation.report_scores import Probabilities
from training.run.atomic_write import write_atomically


def write_predictions(path: Path, probabilities: Probabilities, data: CovidCt) -> None:
    """Write one row per slice of validation and of test: split, path, label, probability."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("split", "path", "label", "probability"))
    for split, answers in ((data.val, probabilities.val), (data.test, probabilities.test)):
        for labelled, probability in zip(split.slices, answers.tolist(), strict=True):
            rows.writerow((split.name, labelled.path, labelled.label, f"{probability:.6f}"))
    write_atomically(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def read_test_predictions(path: Path) -> NDArray[np.float64]:
    """Read the probabilities of the test split, in its order: float64 (N,)."""
    with path.open(encoding="utf-8", newline="") as file:
        return np.array([float(row["probability"]) for row in csv.DictReader(file) if row["split"] == "test"])
