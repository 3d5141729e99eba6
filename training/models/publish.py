"""Replaces the model of a folder. A process killed at any moment leaves the old model or the new one, never neither.

The manifest is the switch. File names carry version and hash, so new files never overwrite those that the old manifest
pins; renaming the manifest makes them valid at once; then the old files go. The folder itself is not renamed: a mounted
folder, as in a container, can't be, and one that is not empty can't be replaced in one step.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from service.model.card import MANIFEST_NAME, ManifestFile
from training.errors import TrainingError
from training.run.atomic_write import sync
from training.run.provenance import hash_file
from training.run.written_files import record_written

CARD_NAME: Final = "README.md"
PREDICTIONS_NAME: Final = "predictions.csv"
"""Files of a models folder, next to the manifest and the model files."""

_STAGING_NAME: Final = ".new"
"""Inside the models folder: on the same file system, so that its files can be renamed."""


def staging_folder(folder: Path) -> Path:
    """Create the folder that a new model is built in, next to the one that is in place."""
    staging = folder / _STAGING_NAME
    staging.mkdir(parents=True, exist_ok=True)
    return staging


def publish(folder: Path) -> None:
    """Replace the model of a folder by the complete one, with its manifest, in its staging folder.

    Raises:
        TrainingError: the new model is incomplete, or a file can't be moved; the model in place still is.
    """
    staging = folder / _STAGING_NAME
    _verify(staging)
    old = set(_model_files(folder))
    files = [path for path in sorted(staging.rglob("*")) if path.is_file()]
    try:
        for path in sorted(files, key=lambda path: path.name == MANIFEST_NAME):  # the manifest comes last
            target = folder / path.relative_to(staging)
            target.parent.mkdir(exist_ok=True)
            sync(path)
            if path.name == MANIFEST_NAME:
                sync(folder)
            record_written(target)
            path.replace(target)
        sync(folder)
        for name in old - set(_model_files(folder)):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(staging)
    except OSError as error:
        raise TrainingError(f"{error.filename}: can't replace the model: {error.strerror}; run it again") from error


def copy_model(source: Path, folder: Path) -> None:
    """Replace the model of `folder` by the one in `source`; other files there stay."""
    staging = staging_folder(folder)
    try:
        shutil.rmtree(staging)
        for path in source.rglob("*"):
            place = path.relative_to(source)
            if path.is_file() and place.parts[0] != _STAGING_NAME:
                (staging / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, staging / place)
    except OSError as error:
        raise TrainingError(f"{folder}: can't copy the model: {error.strerror}; run it again") from error
    publish(folder)


class _Manifest(BaseModel):
    """The files that a manifest of any version names; a network that learned nothing has none."""

    files: tuple[ManifestFile, ...]


def _verify(staging: Path) -> None:
    manifest = _read(staging)
    if manifest is None:
        raise TrainingError(f"{staging}: no complete model to put in place; run the same command again")
    damaged = find_damaged(staging, manifest.files)
    if damaged is not None:
        raise TrainingError(f"{damaged}: not the file of its manifest; run the same command again")


def find_damaged(folder: Path, files: Iterable[ManifestFile]) -> Path | None:
    """Find a file that is missing or has another hash than its manifest says; None if all are whole."""
    paths = ((folder / file.name, file.sha256) for file in files)
    return next((path for path, sha256 in paths if not path.is_file() or hash_file(path) != sha256), None)


def _model_files(folder: Path) -> list[str]:
    manifest = _read(folder)
    return [file.name for file in manifest.files] if manifest else []


def _read(folder: Path) -> _Manifest | None:
    try:
        return _Manifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValidationError):
        return None
