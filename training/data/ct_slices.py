"""Slices of several sources with their label, patient, lesion mask and lung mask, where known."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.imaging.decode import Slice, to_input
from service.model.card import SplitFingerprint
from training.data.covid_ct import LabelledSlice, Split, decode_file, hash_of_files
from training.data.labelled import (
    LESION_ENDING,
    LUNG_ENDING,
    TABLE_NAME,
    Finding,
    LabelledFile,
    check_distinct,
    list_images,
    list_labelled,
)
from training.data.masks import Mask, read_mask
from training.data.tables import read_rows
from training.errors import TrainingError
from training.run.progress import map_in_threads

SLICE_SIZE: Final = 320
"""Pixels, side of the square slice that the service sends to the network."""

_MASK_VALUES: Final = "a mask is a picture of two values, the larger is inside"

_FEWEST_LESION: Final = 0.0005
"""Share of the slice from which on a drawn mask is a lesion."""

Kind: TypeAlias = Literal["labelled", "lesions", "clear", "other"]
"""Kind of a source: labels, lesion masks, lungs without lesion, or pictures that are not chest slices."""


@dataclass(frozen=True, slots=True)
class CtSlice:
    """One slice as network input, with its label, group and masks where known.

    Attributes:
        source: name of the source, so that a whole source can be left out.
        name: file within the source.
        group: patient, paper or volume within the source; no fold splits a group.
        kind: use of the slice in training.
        grey: uint8 (320, 320).
        label: 1 is COVID, 0 is NonCOVID, None is unknown.
        lesion: (320, 320), lesions; None if they were not drawn.
        lung: (320, 320), lungs with their lesions; None if they were not drawn.
        finding: of a slice without COVID; None is unknown. Used to choose thresholds, never in training.
    """

    source: str
    name: str
    group: str
    kind: Kind
    grey: NDArray[np.uint8]
    label: int | None = None
    lesion: Mask | None = None
    lung: Mask | None = None
    finding: Finding | None = None


def from_covid_ct(split: Split, groups: Sequence[str], corrections: Mapping[str, int | None]) -> list[CtSlice]:
    """Convert the slices of a COVID-CT split, with corrected labels.

    Args:
        split: the slices.
        groups: paper or patient of each.
        corrections: path of a slice -> its true label, or None to leave its label out.
    """

    def convert(pair: tuple[LabelledSlice, str]) -> CtSlice:
        labelled, group = pair
        label = corrections.get(labelled.path, labelled.label)
        return CtSlice("covid-ct", labelled.path, group, "labelled", _resized(labelled.pixels), label)

    return map_in_threads(convert, list(zip(split.slices, groups, strict=True)), f"resizing {split.name}", "slice")


def read_labelled(folder: Path) -> list[CtSlice]:
    """Read a source with labels, as in `list_labelled`, with its lungs where `NAME.lung.png` has them."""

    def read(file: LabelledFile) -> CtSlice:
        pixels = _read_pixels(file.path)
        grey, lung = _resized(pixels), _read_lungs(file.path, pixels)
        lesion = np.zeros((SLICE_SIZE, SLICE_SIZE), np.bool_) if file.is_clear else None
        return CtSlice(
            file.source, file.name, file.group, "labelled", grey, file.label, lesion, lung, finding=file.finding
        )

    slices = map_in_threads(read, list_labelled(folder), f"reading {folder.name}", "slice")
    _check_lungs(folder, slices)
    return slices


def read_lesions(folder: Path) -> list[CtSlice]:
    """Read slices with masks: `slices.csv` (file, source, volume), `NAME.lesion.png` and, where drawn, `NAME.lung.png`.

    Raises:
        TrainingError: a column or file is missing, a mask has another size than its slice, or all masks of lesions, or
            of lungs, are empty.
    """

    def read(row: dict[str, str]) -> CtSlice:
        path = folder / row["file"]
        pixels = _read_pixels(path)
        source, group = row["source"] or folder.name, row["volume"] or row["file"]
        lesion = read_mask(path.with_suffix(LESION_ENDING), _size(pixels), SLICE_SIZE)
        lung = _read_lungs(path, pixels)
        return CtSlice(source, row["file"], group, "lesions", _resized(pixels), lesion=lesion, lung=lung)

    table = folder / TABLE_NAME
    rows = read_rows(table, ("file", "source", "volume"))
    check_distinct(table, [row["file"] for row in rows])
    slices = map_in_threads(read, rows, f"reading {folder.name}", "slice")
    if not any(slice_.lesion is not None and slice_.lesion.any() for slice_ in slices):
        raise TrainingError(f"{folder}: no mask has a lesion; {_MASK_VALUES}")
    _check_lungs(folder, slices)
    return slices


def read_images(folder: Path, kind: Kind) -> list[CtSlice]:
    """Read a folder of images that are all of one kind: `clear` or `other`."""

    def read(path: Path) -> CtSlice:
        name = path.relative_to(folder).as_posix()
        label = 0 if kind == "clear" else None
        return CtSlice(folder.resolve().name, name, name, kind, _resized(_read_pixels(path)), label=label)

    return map_in_threads(read, list_images(folder), f"reading {folder.name}", "image")


def read_corrections(path: Path) -> dict[str, int | None]:
    """Read COVID-CT's label errors: a CSV of file, split, class, problem.

    Returns:
        Path of a slice, as in `CT_COVID/a.png` -> 0 where another disease or a control was filed under COVID, None
        where the label can't be used: no lesion in the slice, or the same picture as a test slice.
    """
    corrections: dict[str, int | None] = {}
    for row in read_rows(path, ("file", "split", "class", "problem")):
        wrong = row["problem"].startswith(("a control", "another disease"))
        corrections[f"CT_{row['class']}/{row['file']}"] = 0 if wrong else None
    return corrections


def fingerprints(slices: Sequence[CtSlice]) -> dict[str, SplitFingerprint]:
    """Count and hash of each source's grey values, by the source's name."""
    hashes: dict[str, list[str]] = {}
    for slice_ in slices:
        hashes.setdefault(slice_.source, []).append(hashlib.sha256(slice_.grey.tobytes()).hexdigest())
    return {
        name: SplitFingerprint(count=len(members), sha256=hash_of_files(members))
        for name, members in sorted(hashes.items())
    }


def has_lesion(lesion: Mask | None) -> bool:
    """Whether a drawn mask is more than a few pixels."""
    return lesion is not None and bool(lesion.mean() > _FEWEST_LESION)


def content_hash(slices: Sequence[CtSlice]) -> str:
    """Hash names, groups, labels, grey values and masks of slices."""
    digest = hashlib.sha256()
    for slice_ in slices:
        digest.update(repr((slice_.source, slice_.name, slice_.group, slice_.kind, slice_.label)).encode())
        for pixels in (slice_.grey, slice_.lesion, slice_.lung):
            digest.update(b"none" if pixels is None else pixels.tobytes())
    return digest.hexdigest()


def _resized(pixels: Slice) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = to_input(pixels, SLICE_SIZE)[0]
    return grey


def _check_lungs(folder: Path, slices: Sequence[CtSlice]) -> None:
    lungs = [slice_.lung for slice_ in slices if slice_.lung is not None]
    if lungs and not any(lung.any() for lung in lungs):
        raise TrainingError(f"{folder}: no mask {LUNG_ENDING} has a lung; {_MASK_VALUES}")


def _size(pixels: Slice) -> tuple[int, int]:
    """Width and height."""
    return pixels.shape[2], pixels.shape[1]


def _read_pixels(path: Path) -> Slice:
    return decode_file(path, path.read_bytes())


def _read_lungs(path: Path, pixels: Slice) -> Mask | None:
    mask = path.with_suffix(LUNG_ENDING)
    return read_mask(mask, _size(pixels), SLICE_SIZE) if mask.is_file() else None
