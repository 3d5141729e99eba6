"""predictions.csv: the answers that a release is judged by, slice by slice."""

import csv
from pathlib import Path

from training.data.covid_ct import CovidCt
from training.evaluation.evaluate import Answers


def write_predictions(path: Path, answers: Answers, data: CovidCt) -> None:
    """Write one row per slice of the reference and of test: split, path, label, probability, score.

    Out-of-fold answers have no out-of-distribution score, because their networks are not kept.
    """
    reference, test = answers.reference, answers.test
    scores = answers.val.ood_scores.tolist() if reference.name == "val" else [None] * len(reference.split.slices)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("split", "path", "label", "probability", "ood_score"))
        for name, split, probabilities, of_split in (
            (reference.name, reference.split, answers.reference_probabilities, scores),
            ("test", data.test, test.probabilities, test.ood_scores.tolist()),
        ):
            for labelled, probability, score in zip(split.slices, probabilities.tolist(), of_split, strict=True):
                written = "" if score is None else f"{score:.6f}"
                rows.writerow((name, labelled.path, labelled.label, f"{probability:.6f}", written))
