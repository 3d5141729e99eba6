"""Tables with named columns: CSV files and spreadsheets."""

import csv
from collections.abc import Sequence
from pathlib import Path

from python_calamine import CalamineError, CalamineWorkbook

from training.errors import TrainingError


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file in UTF-8 whose first line names at least these columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            _check_columns(path, rows.fieldnames or (), columns, "line")
            # a short row has None in its last columns
            return [{name: value or "" for name, value in row.items() if name is not None} for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: not a CSV file in UTF-8: {error}") from error


def read_spreadsheet(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read these columns of the first sheet of a spreadsheet (.xlsx); its first row names at least these."""
    try:
        header, *rows = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python() or [[]]
    except CalamineError as error:
        raise TrainingError(f"{path}: not a spreadsheet: {error}") from error
    names = [str(name).strip() for name in header]
    _check_columns(path, names, columns, "row")
    places = {column: names.index(column) for column in columns}
    return [{column: str(row[place]) for column, place in places.items()} for row in rows]


def _check_columns(path: Path, names: Sequence[str], columns: Sequence[str], first: str) -> None:
    missing = [column for column in columns if column not in names]
    if missing:
        raise TrainingError(f"{path}: no column {missing[0]}; the first {first} must name {', '.join(columns)}")
