"""predictions.csv: the answers that a release rests on, slice by slice."""

import csv
from pathlib import Path

from training.data.covid_ct import CovidCt
from training.evaluation.evaluate import Results


def write_predictions(path: Path, results: Results, data: CovidCt) -> None:
    """One row a slice of test and of what the threshold was chosen on: split, path, label, probability, score.

    Out-of-fold answers have no out-of-distribution score: those networks are not kept.
    """
    reference, test = results.reference, results.predictions["test"]
    own = reference.name == "val"
    scores = results.predictions["val"].ood_scores.tolist() if own else [None] * len(reference.split.scans)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("split", "path", "label", "probability", "ood_score"))
        for name, split, probabilities, of_split in (
            (reference.name, reference.split, results.chosen_on, scores),
            ("test", data.test, test.probabilities, test.ood_scores.tolist()),
        ):
            for scan, probability, score in zip(split.scans, probabilities.tolist(), of_split, strict=True):
                told = "" if score is None else f"{score:.6f}"
                rows.writerow((name, scan.path, scan.label, f"{probability:.6f}", told))
