"""history.csv of a run: one row for each epoch or checkpoint, for spreadsheets and plots of long runs."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.run.atomic_write import write_text


def write_history(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same columns; None is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a row of a step; rows of this step and later ones, from before a kill, are replaced."""
    rows: list[Mapping[str, object]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows += [each for each in csv.DictReader(file) if float(each["step"]) < row["step"]]
    write_history(path, [*rows, row])
