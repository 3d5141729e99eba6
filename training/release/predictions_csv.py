"""predictions.csv: the answers that a release is judged by, slice by slice."""

import csv
from pathlib import Path

from training.data.covid_ct import CovidCt
from training.evaluation.evaluate import Answers


def write_predictions(path: Path, answers: Answers, data: CovidCt) -> None:
    """Write one row per slice of the reference and of test: split, path, label, probability."""
    reference = answers.reference
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("split", "path", "label", "probability"))
        for name, split, probabilities in (
            (reference.name, reference.split, answers.reference_probabilities),
            ("test", data.test, answers.test.probabilities),
        ):
            for labelled, probability in zip(split.slices, probabilities.tolist(), strict=True):
                rows.writerow((name, labelled.path, labelled.label, f"{probability:.6f}"))
