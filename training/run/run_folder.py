"""The folder of a run: it belongs to one run, which resumes from the checkpoints and records in it."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from training.errors import TrainingError
from training.run.atomic_write import write_text
from training.run.processes import first_only
from training.run.record import Record

RecordT = TypeVar("RecordT", bound=Record)

_SETTINGS_NAME = "run.json"


def check_folder(option: str, folder: Path) -> None:
    """Check before any work that a folder is one or can be created.

    Raises:
        TrainingError: a file has its name or the name of a parent; the message names the option.
    """
    for each in (folder, *folder.parents):
        if each.exists() and not each.is_dir():
            raise TrainingError(f"{option} {folder}: {each} is a file, not a folder")


@first_only
def claim_run_folder(folder: Path, settings: Mapping[str, object], *, fresh: bool = False) -> None:
    """Write the run's settings into its folder, or check that those in it are the same.

    Call it once every input was read: a run that fails on its inputs must claim and delete nothing.

    Args:
        folder: of the run; created if it does not exist.
        settings: of the run, with hashes of its data, as JSON values.
        fresh: delete what is in the folder.

    Raises:
        TrainingError: the folder belongs to a run with other settings or other data, or can't be written.
    """
    path = folder / _SETTINGS_NAME
    if fresh:
        delete(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: can't create the run folder: {error.strerror}") from error
    for stale in folder.glob(".*.*"):  # half-written files of a killed process
        stale.unlink(missing_ok=True)
    if not path.exists():
        write_text(path, json.dumps(settings, indent=2))
        return
    found, mine = _flat(_read_settings(path)), _flat(settings)
    for name in (*mine, *found):
        if found.get(name) != mine.get(name):
            raise TrainingError(
                f"{path}: this run has {name} = {found.get(name)}, not {mine.get(name)}; "
                "pass another folder (--run or --out), or --fresh to delete the old run"
            )


def delete(folder: Path) -> None:
    """Delete a run, if there is one; a folder with other things is left alone.

    Raises:
        TrainingError: the folder has files but no run, or can't be deleted.
    """
    if not folder.exists():
        return
    if any(folder.iterdir()) and not any(folder.glob(f"*/{_SETTINGS_NAME}")) and not (folder / _SETTINGS_NAME).exists():
        raise TrainingError(
            f"--fresh: {folder} has files but no {_SETTINGS_NAME}, so it is not a run; delete it yourself"
        )
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise TrainingError(f"{folder}: can't delete the old run: {error.strerror}") from error


def resumed_record(
    path: Path, kind: type[RecordT], compute: Callable[[], RecordT], valid: Callable[[RecordT], bool] = lambda _: True
) -> RecordT:
    """Read the record of a stage that an interrupted run finished, if it is still valid, or compute and write it."""
    try:
        record = kind.model_validate_json(path.read_bytes())
        if valid(record):
            return record
    except (OSError, ValidationError):  # absent, or of another version of this code
        pass
    record = compute()
    record.write(path)
    return record


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Report errors while a checkpoint is read and applied as errors of its file.

    Raises:
        TrainingError: the checkpoint can't be read, or belongs to another run.
    """
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise TrainingError(f"{path}: not a checkpoint of this run ({error}); --fresh starts over") from error


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
