"""The list of the files that a run wrote, which is all that `--fresh` deletes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

LIST_NAME: Final = "run-files.txt"
"""In the run folder: one path a line, relative to it. Its presence makes the folder that of a run."""

_DEPTH: Final = 4
"""Levels from a file to its run folder: `model/.new/figures/roc.png` has four."""


def record_written(path: Path) -> None:
    """Add a file to the list of the run that its folder belongs to; does nothing outside of runs."""
    for folder in list(path.parents)[:_DEPTH]:
        list_path = folder / LIST_NAME
        if list_path.is_file():
            name = path.relative_to(folder).as_posix()
            if name not in list_path.read_text(encoding="utf-8").splitlines():
                with list_path.open("a", encoding="utf-8") as file:
                    file.write(f"{name}\n")
            return


def written_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a run that are inside its folder, the list itself last."""
    for name in (folder / LIST_NAME).read_text(encoding="utf-8").splitlines():
        path = folder / name
        if folder.resolve() in path.resolve().parents:
            yield path
    yield folder / LIST_NAME


def written_folders(folder: Path) -> list[Path]:
    """Return the run folder and those in it that the run wrote files into, outer ones first."""
    inner: set[Path] = set()
    if (folder / LIST_NAME).is_file():
        for path in written_files(folder):
            inner |= {parent for parent in path.parents if folder in parent.parents and parent.is_dir()}
    return [folder, *sorted(inner)]
