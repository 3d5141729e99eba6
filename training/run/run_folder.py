"""The folder of a run: settings, lock and stages of one run, which resumes from the files in it."""

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from training.errors import TrainingError
from training.run.atomic_write import PARTIAL_SUFFIX, write_text
from training.run.processes import current, first_only
from training.run.progress import say
from training.run.written_files import LIST_NAME, record_written, written_files, written_folders

_SETTINGS_NAME: Final = "run.json"
_LOCK_NAME: Final = "run.lock"


def check_folder(option: str, folder: Path, *, fresh: bool = False) -> None:
    """Check before any work that a folder is one or can be created, and with `fresh` that it can be deleted.

    Raises:
        TrainingError: a file has its name or the name of a parent, or the folder is not a run that may be deleted; the
            message names the option.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise TrainingError(f"{option} {folder}: {path} is a file, not a folder")
    if fresh and folder.is_dir() and any(folder.iterdir()):
        _check_is_run(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this run; the lock ends with the process, even if it is killed.

    Raises:
        TrainingError: another run works in this folder.
    """
    if not current().is_first:  # the first process holds the lock for all
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise TrainingError(
                f"{folder}: {file.read().strip() or 'another process'} is working on this run; wait for it or stop it, "
                "or pass another folder"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


@first_only
def claim_run_folder(folder: Path, settings: Mapping[str, object], *, fresh: bool = False) -> None:
    """Write the run's settings into its folder, or check that those in it are the same.

    Call it after every input was read: a run that fails on its inputs must claim and delete nothing.

    Args:
        folder: of the run; created if it does not exist.
        settings: of the run, with hashes of its data, as JSON values.
        fresh: delete the files of the run that is in the folder.

    Raises:
        TrainingError: the folder belongs to a run with other settings or other data.
    """
    path = folder / _SETTINGS_NAME
    if fresh:
        delete(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for written_folder in written_folders(folder):
        for partial in written_folder.glob(f".*{PARTIAL_SUFFIX}"):  # of a killed process
            partial.unlink(missing_ok=True)
    if not path.exists():
        write_text(folder / LIST_NAME, "")
        write_text(path, json.dumps(settings, indent=2))
        record_written(folder / _LOCK_NAME)
        return
    stored, wanted = _flat(_read_settings(path)), _flat(settings)
    for name in (*wanted, *stored):
        if stored.get(name) != wanted.get(name):
            raise TrainingError(
                f"{path}: this run has {name} = {stored.get(name)}, not {wanted.get(name)}; "
                "pass another folder (--run or --out), or --fresh to delete the old run"
            )


def delete(folder: Path) -> None:
    """Delete the files on the run's list of written files; everything else stays."""
    if not folder.is_dir() or not any(path.name != _LOCK_NAME for path in folder.iterdir()):
        return
    _check_is_run(folder)
    folders = written_folders(folder)
    for path in written_files(folder):
        if path.name != _LOCK_NAME:  # this process holds it
            path.unlink(missing_ok=True)
    for inner in reversed(folders[1:]):
        if not any(inner.iterdir()):
            inner.rmdir()
    others = [path.name for path in folder.iterdir() if path.name != _LOCK_NAME]
    if others:
        say(f"--fresh: {folder} keeps what the run did not write: {', '.join(sorted(others)[:5])}")


def _check_is_run(folder: Path) -> None:
    if (folder / LIST_NAME).is_file():
        return
    if (folder / _SETTINGS_NAME).is_file():
        reason = f"it has no {LIST_NAME}, so it is a run of an older version"
    else:
        reason = f"it has files but no {_SETTINGS_NAME}, so it is not a run"
    raise TrainingError(f"--fresh {folder}: {reason}; delete it yourself, or pass another folder")


def _read_settings(path: Path) -> dict[str, object]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: can't read the run's settings ({error}); --fresh starts over") from error
    if not isinstance(settings, dict):
        raise TrainingError(f"{path}: not the settings of a run; --fresh starts over")
    return settings


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Replace each group of settings by its members, named `group.member`."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
