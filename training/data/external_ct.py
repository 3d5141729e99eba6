"""Labelled CT slices of other sources than COVID-CT: a folder with the sub-folders COVID and NonCOVID."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from service.errors import ServiceError, UnsupportedImageError
from service.imaging.decode import decode
from training.data.covid_ct import LABELS, LabelledSlice, Split, encoding_of, pixel_hash
from training.errors import TrainingError
from training.run.progress import progress, say


def read_external(folder: Path, known: Iterable[Split]) -> Split:
    """Read all images below the sub-folders COVID and NonCOVID; other files, such as notes, are skipped.

    Slices of `known` are left out. Only equal grey values at equal size are recognised, not scaled or recompressed
    copies.

    Raises:
        TrainingError: a sub-folder is missing or has no images, or an image is damaged; the message names it.
    """
    hashes = {pixel_hash(each.pixels) for split in known for each in split.slices}
    slices: list[LabelledSlice] = []
    for label, name in enumerate(LABELS):
        if not (folder / name).is_dir():
            raise TrainingError(f"{folder}: no folder {name}; pass a folder with sub-folders {' and '.join(LABELS)}")
        read = [each for each in _read(folder / name, label) if pixel_hash(each.pixels) not in hashes]
        if not read:
            raise TrainingError(f"{folder / name}: no images, or none that is not in COVID-CT too")
        slices += read
    return Split(folder.resolve().name, tuple(slices))


def _read(folder: Path, label: int) -> list[LabelledSlice]:
    slices, skipped = [], 0
    for path in progress(sorted(path for path in folder.rglob("*") if path.is_file()), f"reading {folder}", "file"):
        data = path.read_bytes()
        try:
            pixels = decode(data)
        except UnsupportedImageError:
            skipped += 1
            continue
        except ServiceError as error:
            raise TrainingError(f"{path}: {error.detail}") from error
        slices.append(LabelledSlice(str(path), label, hashlib.sha256(data).hexdigest(), encoding_of(data), pixels))
    if skipped:
        say(f"{folder}: {skipped} files skipped that are not images")
    return slices
