"""Files of labelled sources other than COVID-CT, for training and for evaluation."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, cast, get_args

from training.data.covid_ct import LABELS, LabelledSlice, Split, decode_file
from training.data.tables import read_rows
from training.errors import TrainingError
from training.run.progress import map_in_threads

TABLE_NAME: Final = "slices.csv"

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".dcm", ".tif", ".tiff", ".bmp")
"""Of files that are read from a folder without a table."""

LESION_ENDING: Final = ".lesion.png"
LUNG_ENDING: Final = ".lung.png"
"""Endings of masks, which lie next to their slices; `NAME.png` has `NAME.lung.png`."""


Finding: TypeAlias = Literal["healthy", "other disease"]
"""Finding in a slice without COVID."""


class LabelledFile(NamedTuple):
    """One file of a source.

    Attributes:
        name: within the source's folder.
        source: a folder may hold several.
        group: patient, or the file's own name where patients are not known.
        is_clear: whether the table says that the lungs are clear of lesions.
        finding: of a slice without COVID; None is unknown.
    """

    path: Path
    name: str
    source: str
    label: int
    group: str
    is_clear: bool = False
    finding: Finding | None = None


def list_labelled(folder: Path) -> list[LabelledFile]:
    """List a source with labels: `slices.csv` (file, label, source, patient) or the folders `COVID` and `NonCOVID`.

    In the two folders, a sub-folder is a patient. A column `lesions` of the table may say `none` for slices whose lungs
    are clear of lesions, a column `finding` may say `healthy` or `other disease` for slices without COVID.

    Raises:
        TrainingError: neither is there, a column is missing, a label or finding is unknown, or a file is listed twice.
    """
    table = folder / TABLE_NAME
    return _from_table(table) if table.is_file() else _from_folders(folder)


def read_originals(folder: Path) -> Split:
    """Read a labelled source at the size of its files."""
    files = list_labelled(folder)

    def read(file: LabelledFile) -> LabelledSlice:
        data = file.path.read_bytes()
        pixels = decode_file(file.path, data)
        return LabelledSlice(file.name, file.label, hashlib.sha256(data).hexdigest(), file.path.suffix, pixels)

    slices = tuple(map_in_threads(read, files, f"reading {folder.name}", "slice"))
    groups = tuple(f"{file.source} {file.group}" for file in files)
    patients_are_known = any(file.group != file.name for file in files)
    return Split(folder.resolve().name, slices, groups if patients_are_known else None)


def list_images(folder: Path) -> list[Path]:
    """List the images of a folder but not masks next to them, in the order of their paths; at least one."""
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder of images")
    images = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and not path.name.endswith((LESION_ENDING, LUNG_ENDING))
    )
    if not images:
        raise TrainingError(
            f"{folder}: no images, which are files named {', '.join(f'*{suffix}' for suffix in SUFFIXES)}"
        )
    return images


def check_distinct(table: Path, names: Sequence[str]) -> None:
    """Check that a table names each file once, and at least one."""
    if not names:
        raise TrainingError(f"{table}: the table has no rows")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise TrainingError(f"{table}: {name} is listed twice")


def _from_table(table: Path) -> list[LabelledFile]:
    rows = read_rows(table, ("file", "label", "source", "patient"))
    check_distinct(table, [row["file"] for row in rows])
    files = []
    for row in rows:
        name, label, finding = row["file"], row["label"], row.get("finding") or None
        if label not in LABELS:
            raise TrainingError(f"{table}: {name} has label {label!r}; labels are {' and '.join(LABELS)}")
        if finding not in (None, *get_args(Finding)):
            known = " and ".join(get_args(Finding))
            raise TrainingError(f"{table}: {name} has finding {finding!r}; findings are {known}")
        files.append(
            LabelledFile(
                path=table.parent / name,
                name=name,
                # a source may name its parts behind a space: covid-ct-md CAP
                source=(row["source"] or table.parent.name).split(" ")[0],
                label=LABELS.index(label),
                group=row["patient"] or name,
                is_clear=row.get("lesions") == "none",
                finding=cast(Finding | None, finding),
            )
        )
    return files


def _from_folders(folder: Path) -> list[LabelledFile]:
    files = []
    for label, label_name in enumerate(LABELS):
        for path in list_images(folder / label_name):
            name = path.relative_to(folder).as_posix()
            group = name if path.parent == folder / label_name else path.parent.relative_to(folder).as_posix()
            files.append(LabelledFile(path, name, folder.resolve().name, label, group))
    return files
