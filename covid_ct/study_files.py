"""Files of a study: listed, and opened when their turn to be sent comes."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from covid_ct.errors import SourceError
from covid_ct.sources import files_below

PathLike: TypeAlias = str | os.PathLike[str]


def study_files(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """List the files of a study: paths as they are, folders with all below them, sorted by name.

    Raises:
        SourceError: a path leads to no file.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    found: list[Path] = []
    for path in several:
        for source in files_below(os.fspath(path)):
            if source.problem is not None:
                code, detail = source.problem
                raise SourceError(code, f"{source.path}: {detail}")
            found.append(Path(source.path))
    return found


class LaterFile:
    """A file that is opened at the first read, and closed at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes.

        Raises:
            SourceError: the file can't be read.
        """
        try:
            if self._file is None:
                self._file = self._path.open("rb")
            data = self._file.read(size)
        except OSError as error:
            raise SourceError("unreadable_file", f"{self._path}: can't be read: {error.strerror}") from error
        if not data:
            self._file.close()
        return data
