"""Table of patients: the patient of each slice, so that no patient is on both sides of a fold."""

import csv
from pathlib import Path
from typing import Final

from training.data.covid_ct import Split
from training.errors import TrainingError

_COLUMNS: Final = ("file", "class", "split", "patient")


def read_patients(path: Path, split: Split) -> tuple[str, ...]:
    """Read class and patient of each slice, in the order of the split.

    COVID-CT numbers the patients of each class from 1, so equal numbers in two classes are two people.

    Args:
        path: CSV with the columns file, class, split and patient; the column split is ignored.
        split: the slices to find.

    Raises:
        TrainingError: the table can't be read, or lacks a slice; the message names file and slice.
    """
    patients = _read_table(path)
    unknown = [each.path for each in split.slices if not patients.get(each.path)]
    if unknown:
        raise TrainingError(
            f"{path}: no patient for {unknown[0]} ({len(unknown)} such images); add a row with the patient for each"
        )
    return tuple(patients[each.path] for each in split.slices)


def _read_table(path: Path) -> dict[str, str]:
    """Map paths such as `CT_COVID/a.png` to class and patient, empty for a row without a patient."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise TrainingError(f"{path}: no column {missing[0]}; the first line must be {','.join(_COLUMNS)}")
            return {
                f"CT_{row['class']}/{row['file']}": f"{row['class']} {row['patient']}" if row["patient"] else ""
                for row in rows
            }
    except OSError as error:
        raise TrainingError(f"{path}: can't read the table of patients: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: not a CSV file in UTF-8: {error}") from error
