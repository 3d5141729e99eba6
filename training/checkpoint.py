"""Checkpoints of runs that go on where they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """What goes wrong while a checkpoint is read and taken over, told as its file's fault.

    Raises:
        TrainingError: it can't be read, or is not of this run.
    """
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise TrainingError(f"{path}: not a checkpoint of this run ({error}); --fresh starts over") from error
