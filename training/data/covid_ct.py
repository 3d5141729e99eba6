"""COVID-CT in the layout of its GitHub repository (UCSD-AI4H/COVID-CT): checked, decoded and split.

Zhao et al. 2020, arXiv 2003.13865. The images come from papers. They are for research only and are never published.
"""

import hashlib
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

import torch
from PIL import Image

from service.errors import ServiceError
from service.imaging.decode import Slice, decode, to_input
from service.model.card import SplitFingerprint
from training.data.near_copies import ALIKE, find_near_copies
from training.data.tables import read_rows
from training.errors import TrainingError
from training.run.progress import map_in_threads, warn

SplitName: TypeAlias = Literal["train", "val", "test"]

SPLITS: Final[tuple[SplitName, ...]] = get_args(SplitName)
LABELS: Final = ("NonCOVID", "COVID")
"""Names of class 0 and class 1; COVID is the positive class."""

OFFICIAL_COUNTS: Final[Mapping[tuple[SplitName, str], int]] = {
    ("train", "COVID"): 191,
    ("train", "NonCOVID"): 234,
    ("val", "COVID"): 60,
    ("val", "NonCOVID"): 58,
    ("test", "COVID"): 98,
    ("test", "NonCOVID"): 105,
}
"""Published number of images by split and class."""

BATCH: Final = 16
"""Slices in a batch where no gradient is taken; it changes memory and speed, not results."""


@dataclass(frozen=True, slots=True)
class LabelledSlice:
    """One image of the data set, decoded.

    Attributes:
        path: class folder and file name.
        label: 1 is COVID.
        sha256: of the file's bytes.
        encoding: format and colour mode of the file, such as `PNG RGBA`; only the shortcut audit reads it.
        pixels: uint8 (1, H, W).
    """

    path: str
    label: int
    sha256: str
    encoding: str
    pixels: Slice


@dataclass(frozen=True)
class Split:
    """The slices of one split, in the order of its lists, and the patient of each where patients are known."""

    name: str
    slices: tuple[LabelledSlice, ...]
    patients: tuple[str, ...] | None = None

    @cached_property
    def labels(self) -> torch.Tensor:
        """int64 (N,)."""
        return torch.tensor([slice_.label for slice_ in self.slices])

    def fingerprint(self) -> SplitFingerprint:
        """Hash the sorted hashes of the files, so that a card can identify the data without containing it."""
        return SplitFingerprint(count=len(self.slices), sha256=hash_of_files(slice_.sha256 for slice_ in self.slices))


class CovidCt(NamedTuple):
    """The official split."""

    train: Split
    val: Split
    test: Split

    def fingerprints(self) -> dict[str, SplitFingerprint]:
        """Return the fingerprint of each split by its name."""
        return {split.name: split.fingerprint() for split in self}

    def train_and_val(self) -> Split:
        """Return train and validation as one split; test stays out of every choice."""
        return Split("train", self.train.slices + self.val.slices)


def read_covid_ct(root: Path, counts: str = "official", exclude: Path | None = None) -> CovidCt:
    """Read and check the whole data set; warn of slices that are near copies of slices in another split.

    Args:
        root: folder with `Images-processed/` (zips, or the folders in them) and `Data-split/`.
        counts: `official`: each list must have the published length; `any`: it may have another one.
        exclude: CSV of file, class: slices to leave out of their split.

    Raises:
        TrainingError: something is missing, miscounted, undecodable or in two splits; the message names the file.
    """
    rows = read_rows(exclude, ("file", "class")) if exclude else []
    excluded = {f"CT_{row['class']}/{row['file']}" for row in rows}
    sources = {label: _open_images(root, label) for label in LABELS}
    splits, unknown = [], excluded.copy()
    for name in SPLITS:
        listed = [(label, file) for label in reversed(LABELS) for file in _read_list(root, name, label, counts)]
        kept = [(label, file) for label, file in listed if f"CT_{label}/{file}" not in excluded]
        unknown -= {f"CT_{label}/{file}" for label, file in listed}
        read = map_in_threads(lambda named: _read_slice(sources[named[0]], *named), kept, f"reading {name}", "slice")
        splits.append(Split(name, tuple(read)))
    if unknown:
        raise TrainingError(f"--exclude: {min(unknown)} is in no split list")
    _check_disjoint(splits)
    _warn_of_near_copies(splits)
    return CovidCt(*splits)


def plain_inputs(split: Split, input_size: int) -> torch.Tensor:
    """Return the slices of a split like the service feeds them: uint8 (N, 1, input_size, input_size)."""
    return torch.stack([torch.from_numpy(to_input(slice_.pixels, input_size)) for slice_ in split.slices])


def hash_of_files(hashes: Iterable[str]) -> str:
    """Combine the SHA-256 of many files, in any order, into one."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


_Images: TypeAlias = Mapping[str, zipfile.Path | Path]


def _open_images(root: Path, label: str) -> _Images:
    """Map file names of one class to their paths, in the folder or else in the zip."""
    folder = root / "Images-processed"
    unzipped, archive = folder / f"CT_{label}", folder / f"CT_{label}.zip"
    if unzipped.is_dir():
        return {path.name: path for path in unzipped.iterdir()}
    if not archive.is_file():
        raise TrainingError(
            f"{folder}: neither CT_{label}.zip nor the folder CT_{label} is there; "
            "--data must name a checkout of github.com/UCSD-AI4H/COVID-CT"
        )
    try:
        return {path.name: path for path in zipfile.Path(archive, f"CT_{label}/").iterdir()}
    except zipfile.BadZipFile as error:
        raise TrainingError(f"{archive}: not a complete zip file ({error}); download it again") from error


def _read_list(root: Path, split: SplitName, label: str, counts: str) -> list[str]:
    path = root / "Data-split" / label / f"{split}CT_{label}.txt"
    names = [name.strip() for name in path.read_text(encoding="utf-8").split("\n") if name.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise TrainingError(f"{path}: {twice[0]} is listed twice")
    if counts == "official" and len(names) != OFFICIAL_COUNTS[split, label]:
        raise TrainingError(
            f"{path}: {len(names)} images are listed, the official split has {OFFICIAL_COUNTS[split, label]}; "
            "pass --counts any for a split of your own"
        )
    if not names:
        raise TrainingError(f"{path}: the list is empty")
    return names


def _read_slice(images: _Images, label: str, file: str) -> LabelledSlice:
    path = f"CT_{label}/{file}"
    if file not in images:
        raise TrainingError(f"{path}: listed in the split lists, but not among the images")
    try:
        data = images[file].read_bytes()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as error:
        raise TrainingError(f"{path}: damaged in its zip or folder ({error}); download the file again") from error
    pixels = decode_file(path, data)
    with Image.open(io.BytesIO(data)) as image:
        encoding = f"{image.format} {image.mode}"
    return LabelledSlice(path, LABELS.index(label), hashlib.sha256(data).hexdigest(), encoding, pixels)


def decode_file(path: Path | str, data: bytes) -> Slice:
    """Decode a file like the service."""
    try:
        return decode(data)
    except ServiceError as error:
        raise TrainingError(f"{path}: {error.detail}") from error


def _check_disjoint(splits: list[Split]) -> None:
    """Refuse an image that is in two splits, as the same file or as the same grey values in another file."""
    seen: dict[tuple[tuple[int, ...], bytes], tuple[str, str]] = {}
    for split in splits:
        for slice_ in split.slices:
            picture = slice_.pixels.shape, hashlib.sha256(slice_.pixels.tobytes()).digest()
            where, path = seen.setdefault(picture, (split.name, slice_.path))
            if where != split.name:
                raise TrainingError(f"{slice_.path} of {split.name} is the same image as {path} of {where}")


def _warn_of_near_copies(splits: list[Split]) -> None:
    """Name pictures that training shares with validation or test under another name, size or format."""
    train, val, test = splits
    for first, second in ((train, val), (train, test), (val, test)):
        pixels = [[slice_.pixels for slice_ in split.slices] for split in (first, second)]
        copies = find_near_copies(pixels[0], pixels[1])
        if copies:
            pairs = [f"{first.slices[i].path} and {second.slices[j].path}" for i, j in copies]
            more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
            warn(
                f"{first.name} and {second.name} share pictures (correlation above {ALIKE}): {'; '.join(pairs[:3])}"
                f"{more}; --exclude FILE leaves slices out"
            )
