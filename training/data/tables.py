"""CSV tables with named columns."""

import csv
from collections.abc import Sequence
from pathlib import Path

from training.errors import TrainingError


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file in UTF-8 whose first line names at least these columns.

    Raises:
        TrainingError: it can't be read, is no CSV file, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in columns if column not in (rows.fieldnames or ())]
            if missing:
                raise TrainingError(f"{path}: no column {missing[0]}; the first line must name {', '.join(columns)}")
            # a short row has None in its last columns
            return [{name: value or "" for name, value in row.items() if name is not None} for row in rows]
    except OSError as error:
        raise TrainingError(f"{path}: can't read the table: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: not a CSV file in UTF-8: {error}") from error
