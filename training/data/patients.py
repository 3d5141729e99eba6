"""Groups of COVID-CT's slices by patient and by paper, so that no fold splits either."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from training.data.covid_ct import CovidCt, Split, read_covid_ct
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

_PREPRINT: Final = re.compile(r"\d{4}\.\d\d\.\d\d\.\d+")
"""Number of a paper at medRxiv and bioRxiv, as in `2020.02.10.20021584-p6-52%0.png`."""

_END_OF_NAME: Final = re.compile(r"[-_%]|\.\w+$")


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
    """Read class and patient of each slice, in the order of the split; without a table, warn and return None.

    COVID-CT numbers the patients of each class from 1, so equal numbers in two classes are two people.

    Args:
        table: CSV with the columns file, class, split and patient; None looks for tables in `root`. The column split
            is ignored.
        root: folder of COVID-CT.
        split: the slices.
    """
    tables = find_tables(table, root)
    if not tables:
        names = " with ".join(name for name, _ in _META_INFORMATION.values())
        warn(
            f"no --patients, and neither {_DEFAULT_NAME} nor {names} in {root}: each slice counts as a patient, so "
            "intervals are too narrow"
        )
        return None
    patients = _read_table(tables[0]) if len(tables) == 1 else _read_meta_information(root)
    unknown = [slice_.path for slice_ in split.slices if not patients.get(_stem(slice_.path), ("", ""))[1]]
    if unknown:
        raise TrainingError(
            f"{tables[0]}: no patient for {unknown[0]} ({len(unknown)} such images); add a row with the patient for "
            "each, or pass --patients FILE"
        )
    return tuple(" ".join(patients[_stem(slice_.path)]) for slice_ in split.slices)


def read_with_patients(root: Path, counts: str, exclude: Path | None, table: Path | None) -> CovidCt:
    """Read COVID-CT as `read_covid_ct`, with the patients of validation and test as `known_patients`."""
    train, val, test = read_covid_ct(root, counts, exclude)
    patients = known_patients(table, root, Split("validation and test", val.slices + test.slices))
    if patients is None:
        return CovidCt(train, val, test)
    count = len(val.slices)
    return CovidCt(train, replace(val, patients=patients[:count]), replace(test, patients=patients[count:]))


def _read_table(path: Path) -> dict[str, tuple[str, str]]:
    """Read class and patient by the slice's path without `.png`."""
    return {
        f"CT_{row['class']}/{_stem(row['file'])}": (row["class"], row["patient"]) for row in read_rows(path, _COLUMNS)
    }


def _read_meta_information(root: Path) -> dict[str, tuple[str, str]]:
    patients = {}
    for label, (name, (file, patient)) in _META_INFORMATION.items():
        read = read_spreadsheet if name.endswith(".xlsx") else read_rows
        for row in read(root / name, (file, patient)):
            patients[f"CT_{label}/{_stem(row[file])}"] = (label, row[patient].strip())
    return patients


def _stem(name: str) -> str:
    """Name of a file; a third of the names in the spreadsheet lack the suffix of their file."""
    return name.strip().removesuffix(".png")


def group_by_paper(split: Split, patients: Sequence[str]) -> tuple[str, ...]:
    """Return the group of each slice, such that slices of one paper or of one patient share a group.

    COVID-CT names COVID images after their paper: the number of a preprint, else the name up to the first `-`, `_` or
    `%`. NonCOVID images have numbers as names; their groups are patients.
    """
    papers = [
        _paper_of(slice_.path) if slice_.label else patient
        for slice_, patient in zip(split.slices, patients, strict=True)
    ]
    _, paper = np.unique(papers, return_inverse=True)
    _, patient = np.unique(patients, return_inverse=True)
    # papers and patients are nodes, slices are edges; each connected component is a group
    first = paper.max(initial=-1) + 1
    nodes = first + patient.max(initial=-1) + 1
    links = coo_matrix((np.ones(len(papers)), (paper, first + patient)), shape=(nodes, nodes))
    _, component = connected_components(links, directed=False)
    groups = component[paper].tolist()
    names: dict[int, str] = {}
    for name, group in zip(papers, groups, strict=True):
        names.setdefault(group, name)
    return tuple(names[group] for group in groups)


def _paper_of(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    preprint = _PREPRINT.match(name)
    return f"COVID {preprint[0] if preprint else _END_OF_NAME.split(name, maxsplit=1)[0]}"
