"""Tables of patients: the patient of each slice, so that no fold splits a patient."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from training.data.covid_ct import Split
from training.data.tables import read_rows, read_spreadsheet
from training.errors import TrainingError
from training.run.progress import warn

_COLUMNS: Final = ("file", "class", "split", "patient")
_DEFAULT_NAME: Final = "patients.csv"

_META_INFORMATION: Final = {
    "COVID": ("COVID-CT-MetaInfo.xlsx", ("File name", "Patient ID")),
    "NonCOVID": ("NonCOVID-CT-MetaInfo.csv", ("image name", "patient id")),
}
"""COVID-CT's own tables, by class, and their columns of files and patients."""


def find_tables(table: Path | None, root: Path) -> tuple[Path, ...]:
    """Return the tables of patients: the one that was named, else those in the folder of COVID-CT, if there are any.

    These are `patients.csv`, else COVID-CT's own two tables of meta-information.
    """
    if table is not None:
        return (table,)
    meta_information = tuple(root / name for name, _ in _META_INFORMATION.values())
    for tables in ((root / _DEFAULT_NAME,), meta_information):
        if all(path.is_file() for path in tables):
            return tables
    return ()


def known_patients(table: Path | None, root: Path, split: Split) -> tuple[str, ...] | None:
    """Read the patients of a split from the tables; without a table, warn and return None.

    Raises:
        TrainingError: a table can't be read, or lacks a slice.
    """
    tables = find_tables(table, root)
    if not tables:
        names = " with ".join(name for name, _ in _META_INFORMATION.values())
        warn(
            f"no --patients, and neither {_DEFAULT_NAME} nor {names} in {root}: each slice counts as a patient, so "
            "intervals are too narrow"
        )
        return None
    return read_patients(tables[0], split) if len(tables) == 1 else read_meta_information(root, split)


def read_patients(path: Path, split: Split) -> tuple[str, ...]:
    """Read class and patient of each slice, in the order of the split.

    COVID-CT numbers the patients of each class from 1, so equal numbers in two classes are two people.

    Args:
        path: CSV with the columns file, class, split and patient; the column split is ignored.
        split: the slices to find.

    Raises:
        TrainingError: the table can't be read, or lacks a slice; the message names file and slice.
    """
    patients = {f"CT_{row['class']}/{row['file']}": (row["class"], row["patient"]) for row in read_rows(path, _COLUMNS)}
    return _in_order(path, patients, [slice_.path for slice_ in split.slices], split)


def read_meta_information(root: Path, split: Split) -> tuple[str, ...]:
    """Read the patient of each slice from COVID-CT's own tables, in the order of the split.

    Args:
        root: folder of COVID-CT, with both tables.
        split: the slices to find.

    Raises:
        TrainingError: a table can't be read, or lacks a slice; the message names file and slice.
    """
    patients = {}
    for label, (name, (file, patient)) in _META_INFORMATION.items():
        read = read_spreadsheet if name.endswith(".xlsx") else read_rows
        for row in read(root / name, (file, patient)):
            patients[f"CT_{label}/{_stem(row[file])}"] = (label, row[patient].strip())
    return _in_order(root / "*MetaInfo*", patients, [_stem(slice_.path) for slice_ in split.slices], split)


def _stem(name: str) -> str:
    """Name of a file; a third of the names in the spreadsheet lack the suffix of their file."""
    return name.strip().removesuffix(".png")


def _in_order(
    path: Path, patients: Mapping[str, tuple[str, str]], keys: Sequence[str], split: Split
) -> tuple[str, ...]:
    unknown = [
        slice_.path for slice_, key in zip(split.slices, keys, strict=True) if not patients.get(key, ("", ""))[1]
    ]
    if unknown:
        raise TrainingError(
            f"{path}: no patient for {unknown[0]} ({len(unknown)} such images); add a row with the patient for each, "
            "or pass --patients FILE"
        )
    return tuple(" ".join(patients[key]) for key in keys)
