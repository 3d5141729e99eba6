"""Writing of files that are complete or absent, even if the process is killed."""

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final

from training.errors import TrainingError
from training.run.written_files import record_written

PARTIAL_SUFFIX: Final = ".partial"
"""Suffix of incomplete files; a killed process leaves some."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file in the same folder, flush it to the disk, then rename it to `path`.

    Raises:
        TrainingError: the file can't be written, for example because the disk is full; `path` is as it was.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(handle)
            temporary.chmod(0o644)
            record_written(path)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        # torch.save raises an error of its own on a full disk
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise TrainingError(f"{path}: can't write the file: {cause.strerror}; {_CURE}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; raises as `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table; None is an empty cell. Raises as `write_atomically`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    write_text(path, text.getvalue())


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_CURE = "with space and permission to write, the same command continues"
