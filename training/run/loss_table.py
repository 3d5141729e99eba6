"""Table of the losses of a training by step, next to its checkpoint, with the time that the training took."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from training.run.atomic_write import write_csv

_ROWS: Final = 50
"""Fewest rows of a table, if there are so many steps."""

_MOST_STEPS: Final = 100
"""Largest number of steps between two rows."""


def losses_path(checkpoint: Path) -> Path:
    """Return the table next to a checkpoint: `network-losses.csv` for `network.ckpt`."""
    return checkpoint.with_name(f"{checkpoint.stem}-losses.csv")


def has_row(step: int, steps: int) -> bool:
    """Whether losses are kept after this step: the last one, and regular ones before it."""
    return step == steps or step % max(1, min(_MOST_STEPS, steps // _ROWS)) == 0


def append_losses(path: Path, row: Mapping[str, float]) -> None:
    """Add the losses of a step to a table; rows of this step and later ones, from before a kill, are replaced."""
    earlier = [kept.values() for kept in read_losses(path) if float(kept["step"]) < row["step"]]
    write_csv(path, row, [*earlier, row.values()])


def training_seconds(path: Path, step: float = float("inf")) -> float:
    """Read how long a training took up to a step, in all processes that continued it; 0 without a row."""
    return max((float(row["seconds"]) for row in read_losses(path) if float(row["step"]) <= step), default=0.0)


def read_losses(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table, as they are written; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
