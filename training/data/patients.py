"""Table of patients: the patient of each slice, so that no patient is on both sides of a fold."""

from pathlib import Path
from typing import Final

from training.data.covid_ct import Split
from training.data.tables import read_rows
from training.errors import TrainingError
from training.run.progress import warn

_COLUMNS: Final = ("file", "class", "split", "patient")
_DEFAULT_NAME: Final = "patients.csv"


def find_table(table: Path | None, root: Path) -> Path | None:
    """Return the table of patients: the one that was named, or `patients.csv` in the folder of COVID-CT, or None."""
    default = root / _DEFAULT_NAME
    return table or (default if default.is_file() else None)


def known_patients(table: Path | None, root: Path, split: Split) -> tuple[str, ...] | None:
    """Read the patients of a split where a table gives them; without a table, warn and return None.

    Raises:
        TrainingError: the table can't be read, or lacks a slice.
    """
    found = find_table(table, root)
    if found is None:
        warn(
            f"no --patients and no {root / _DEFAULT_NAME}: each slice counts as a patient, so intervals are too narrow"
        )
        return None
    return read_patients(found, split)


def read_patients(path: Path, split: Split) -> tuple[str, ...]:
    """Read class and patient of each slice, in the order of the split.

    COVID-CT numbers the patients of each class from 1, so equal numbers in two classes are two people.

    Args:
        path: CSV with the columns file, class, split and patient; the column split is ignored.
        split: the slices to find.

    Raises:
        TrainingError: the table can't be read, or lacks a slice; the message names file and slice.
    """
    patients = {
        f"CT_{row['class']}/{row['file']}": f"{row['class']} {row['patient']}" if row["patient"] else ""
        for row in read_rows(path, _COLUMNS)
    }
    unknown = [each.path for each in split.slices if not patients.get(each.path)]
    if unknown:
        raise TrainingError(
            f"{path}: no patient for {unknown[0]} ({len(unknown)} such images); add a row with the patient for each"
        )
    return tuple(patients[each.path] for each in split.slices)
