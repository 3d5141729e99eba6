"""predictions.csv of the recipe `lesion`: every prediction of one run, slice by slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.data.ct_slices import CtSlice, has_lesion
from training.evaluation.predictions import Predictions
from training.run.atomic_write import write_csv

COLUMNS: Final = (
    *("set", "source", "group", "file", "label", "finding", "lesion"),
    *("lesion_probability", "covid_given_lesion", "probability", "lung_involvement"),
)


@dataclass(frozen=True, slots=True)
class PredictedSet:
    """N slices with calibrated predictions, and the name of their set."""

    name: str
    slices: Sequence[CtSlice]
    predictions: Predictions


def write_predictions(path: Path, sets: Sequence[PredictedSet]) -> None:
    """Write one row per slice. Unknown labels and findings, and lesions without a mask, are empty cells."""
    rows = (
        (
            *(set_.name, slice_.source, slice_.group, slice_.name, slice_.label, slice_.finding),
            "" if slice_.lesion is None else int(has_lesion(slice_.lesion)),
            *(f"{set_.predictions.lesion_probability[i]:.6f}", f"{set_.predictions.covid_given_lesion[i]:.6f}"),
            *(f"{set_.predictions.probability[i]:.6f}", f"{set_.predictions.involvement[i, 0]:.4f}"),
        )
        for set_ in sets
        for i, slice_ in enumerate(set_.slices)
    )
    write_csv(path, COLUMNS, rows)
