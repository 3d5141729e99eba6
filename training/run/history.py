"""history.csv of a run: one row for each epoch or checkpoint, for spreadsheets and plots of long runs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.run.atomic_write import write_csv


def write_history(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same columns; None is an empty cell."""
    write_csv(path, rows[0], (row.values() for row in rows))


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a row of a step; rows of this step and later ones, from before a kill, are replaced."""
    rows: list[Mapping[str, object]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows += [earlier for earlier in csv.DictReader(file) if float(earlier["step"]) < row["step"]]
    write_history(path, [*rows, row])
