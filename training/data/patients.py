"""Whose slices they are: a table beside the data set, so that no patient is on both sides of a fold."""

import csv
from pathlib import Path
from typing import Final

from training.data.covid_ct import Split
from training.errors import TrainingError

_COLUMNS: Final = ("file", "class", "split", "patient")


def read_patients(path: Path, split: Split) -> tuple[str, ...]:
    """Class and patient of every slice, in the order of the split.

    COVID-CT numbers the patients of each class from 1, so a number that both classes use is of two people.

    Args:
        path: CSV with the columns file, class, split and patient; the split is not looked at.
        split: the slices to find.

    Raises:
        TrainingError: the table can't be read, or says nothing of a slice; names the file and the slice.
    """
    patients = _read_table(path)
    unknown = [scan.path for scan in split.scans if not patients.get(scan.path)]
    if unknown:
        raise TrainingError(
            f"{path}: no patient of {unknown[0]} ({len(unknown)} such images); add a row for each, with its patient"
        )
    return tuple(patients[scan.path] for scan in split.scans)


def _read_table(path: Path) -> dict[str, str]:
    """Path of a scan, as in `CT_COVID/a.png` -> class and patient, empty without one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise TrainingError(f"{path}: no column {missing[0]}; the first line must be {','.join(_COLUMNS)}")
            return {f"CT_{row['class']}/{row['file']}": _group(row["class"], row["patient"]) for row in rows}
    except OSError as error:
        raise TrainingError(f"{path}: can't read the table of patients: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: not a CSV file in UTF-8: {error}") from error


def _group(label: str, patient: str | None) -> str:
    return f"{label} {patient}" if patient else ""
