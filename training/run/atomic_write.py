"""Writing of files that are complete or absent, even if the process is killed while it writes."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from training.errors import TrainingError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file in the same folder, flush it to the disk, then rename it to `path`.

    Raises:
        TrainingError: the file can't be written, for example because the disk is full; `path` is as it was.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            sync(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError where the disk is full
        reason = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        raise TrainingError(f"{path}: can't write the file: {reason}; {_CURE}") from error


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_CURE = "with space and permission to write, the same command continues"
