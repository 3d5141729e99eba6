"""Slices of several sources with what is known of each: label, patient, lesion mask, lung mask."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import ServiceError
from service.imaging.decode import Slice, decode, to_input
from service.model.card import SplitFingerprint
from training.data.covid_ct import LABELS, LabelledSlice, Split, hash_of_files
from training.data.tables import read_rows
from training.errors import TrainingError
from training.run.progress import map_in_threads

SLICE_SIZE: Final = 320
"""Pixels, side of the square slice that the service sends to the network."""

_FEWEST_LESION: Final = 0.0005
"""Share of the slice from which on a drawn mask is a lesion."""

Mask: TypeAlias = NDArray[np.bool_]
"""bool (320, 320), True inside."""

Kind: TypeAlias = Literal["labelled", "lesions", "clear", "other"]
"""Kind of a source: labels, lesion masks, lungs without lesion, or pictures that are not chest slices."""


Finding: TypeAlias = Literal["healthy", "other disease"]
"""What a slice without COVID shows."""


@dataclass(frozen=True, slots=True)
class CtSlice:
    """One slice as the network gets it, and what is known of it.

    Attributes:
        source: name of the source, so that a whole source can be left out.
        name: file within the source.
        group: patient, paper or volume within the source; no fold parts a group.
        kind: what the slice teaches.
        grey: uint8 (320, 320).
        label: 1 is COVID, 0 is not, None is not known.
        lesion: where lesions are; None where nobody drew them.
        lung: where lungs are, lesions included; None where nobody drew them.
        finding: of a slice without COVID; None is not known. It chooses thresholds and teaches nothing.
        encoding: format and colour mode of COVID-CT's file; only scores by format read it.
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
    encoding: str | None = None


def from_covid_ct(split: Split, groups: Sequence[str], corrections: Mapping[str, int | None]) -> list[CtSlice]:
    """Take the slices of a COVID-CT split, with corrected labels.

    Args:
        split: the slices.
        groups: paper or patient of each.
        corrections: path of a slice -> its true label, or None to leave its label out.
    """

    def take(pair: tuple[LabelledSlice, str]) -> CtSlice:
        each, group = pair
        return CtSlice(
            source="covid-ct",
            name=each.path,
            group=group,
            kind="labelled",
            grey=_resized(each.pixels),
            label=corrections.get(each.path, each.label),
            encoding=each.encoding,
        )

    return map_in_threads(take, list(zip(split.slices, groups, strict=True)), f"resizing {split.name}", "slice")


def read_labelled(folder: Path) -> list[CtSlice]:
    """Read a source with labels: `slices.csv` (file, label, source, patient) or the folders `COVID` and `NonCOVID`.

    Next to a slice may lie `NAME.lung.png`, its lungs as somebody drew them. A column `lesions` of the table may say
    `none` for slices whose lungs are clear of lesions, a column `finding` may say `healthy` or `other disease` for
    slices without COVID.

    Raises:
        TrainingError: neither is there, a column or file is missing, or a label is unknown.
    """
    table = folder / "slices.csv"
    rows = _table_rows(table) if table.is_file() else _folder_rows(folder)
    for row in rows:
        if row["label"] not in LABELS:
            raise TrainingError(f"{table}: {row['file']} has label {row['label']!r}; labels are {' and '.join(LABELS)}")
        if row.get("finding", "") not in ("", *get_args(Finding)):
            raise TrainingError(
                f"{table}: {row['file']} has finding {row['finding']!r}; findings are {' and '.join(get_args(Finding))}"
            )

    def read(row: dict[str, str]) -> CtSlice:
        path = folder / row["file"]
        return CtSlice(
            source=row["source"],
            name=row["file"],
            group=row["patient"] or row["file"],
            kind="labelled",
            grey=_read_grey(path),
            label=LABELS.index(row["label"]),
            lesion=np.zeros((SLICE_SIZE, SLICE_SIZE), np.bool_) if row.get("lesions") == "none" else None,
            lung=_drawn_lungs(path),
            finding=cast(Finding, row["finding"]) if row.get("finding") else None,
        )

    return map_in_threads(read, rows, f"reading {folder.name}", "slice")


def _table_rows(table: Path) -> list[dict[str, str]]:
    rows = read_rows(table, ("file", "label", "source", "patient"))
    # a source may name its parts behind a space: covid-ct-md CAP
    return [{**row, "source": (row["source"] or table.parent.name).split(" ")[0]} for row in rows]


def _folder_rows(folder: Path) -> list[dict[str, str]]:
    return [
        {"file": f"{label}/{path.name}", "label": label, "source": folder.name, "patient": ""}
        for label in LABELS
        for path in _images(folder / label)
    ]


def _drawn_lungs(path: Path) -> Mask | None:
    lung = path.with_suffix(".lung.png")
    return _read_mask(lung, path) if lung.is_file() else None


def read_lesions(folder: Path) -> list[CtSlice]:
    """Read slices with masks: `slices.csv` (file, source, volume), `NAME.lesion.png` and, where drawn, `NAME.lung.png`.

    Raises:
        TrainingError: a column or file is missing, or a mask has another size than its slice.
    """

    def read(row: dict[str, str]) -> CtSlice:
        path = folder / row["file"]
        return CtSlice(
            source=row["source"],
            name=row["file"],
            group=row["volume"] or row["file"],
            kind="lesions",
            grey=_read_grey(path),
            lesion=_read_mask(path.with_suffix(".lesion.png"), path),
            lung=_drawn_lungs(path),
        )

    rows = read_rows(folder / "slices.csv", ("file", "source", "volume"))
    return map_in_threads(read, rows, f"reading {folder.name}", "slice")


def read_images(folder: Path, kind: Kind) -> list[CtSlice]:
    """Read a folder of images that are all of one kind: `clear` or `other`."""

    def read(path: Path) -> CtSlice:
        return CtSlice(folder.name, path.name, path.name, kind, _read_grey(path), label=0 if kind == "clear" else None)

    return map_in_threads(read, _images(folder), f"reading {folder.name}", "image")


def read_corrections(path: Path) -> dict[str, int | None]:
    """Read COVID-CT's label errors: a CSV of file, split, class, problem.

    Returns:
        Path of a slice, as in `CT_COVID/a.png` -> 0 where another disease or a control was filed under COVID, None
        where the label can't be used: no lesion in the slice, or the same picture as a test slice.

    Raises:
        TrainingError: the table can't be read or lacks a column.
    """
    corrections: dict[str, int | None] = {}
    for row in read_rows(path, ("file", "split", "class", "problem")):
        wrong = row["problem"].startswith(("a control", "another disease"))
        corrections[f"CT_{row['class']}/{row['file']}"] = 0 if wrong else None
    return corrections


def fingerprints(slices: Sequence[CtSlice]) -> dict[str, SplitFingerprint]:
    """Count and hash of each source's grey values, by the source's name."""
    hashes: dict[str, list[str]] = {}
    for each in slices:
        hashes.setdefault(each.source, []).append(hashlib.sha256(each.grey.tobytes()).hexdigest())
    return {name: SplitFingerprint(count=len(own), sha256=hash_of_files(own)) for name, own in sorted(hashes.items())}


def has_lesion(lesion: Mask | None) -> bool:
    """Whether a drawn mask is more than a few pixels."""
    return lesion is not None and bool(lesion.mean() > _FEWEST_LESION)


def content_hash(slices: Sequence[CtSlice]) -> str:
    """Hash everything that is known of slices: names, groups, labels, grey values and masks."""
    digest = hashlib.sha256()
    for each in slices:
        digest.update(repr((each.source, each.name, each.group, each.kind, each.label)).encode())
        for pixels in (each.grey, each.lesion, each.lung):
            digest.update(b"none" if pixels is None else pixels.tobytes())
    return digest.hexdigest()


def _resized(pixels: Slice) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = to_input(pixels, SLICE_SIZE)[0]
    return grey


def _read_grey(path: Path) -> NDArray[np.uint8]:
    try:
        pixels = decode(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"{path}: can't read the slice: {error.strerror}") from error
    except ServiceError as error:
        raise TrainingError(f"{path}: {error.detail}") from error
    return _resized(pixels)


def _read_mask(path: Path, of: Path) -> Mask:
    try:
        with Image.open(path) as mask, Image.open(of) as picture:
            if mask.size != picture.size:
                raise TrainingError(f"{path}: the mask has {mask.size} pixels, its slice {picture.size}")
            resized = mask.convert("L").resize((SLICE_SIZE, SLICE_SIZE), Image.Resampling.BILINEAR)
            return np.asarray(resized) > 127
    except OSError as error:
        raise TrainingError(f"{path}: can't read the mask: {error}") from error


_SUFFIXES: Final = {".png", ".jpg", ".jpeg", ".dcm", ".tif", ".tiff", ".bmp"}


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder of images")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
