"""COVID-CT as its GitHub repository (UCSD-AI4H/COVID-CT) lays it out, checked, decoded and split.

Zhao et al. 2020, arXiv 2003.13865. The images come from papers; they are for research only and never leave this job.
"""

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

import torch
from PIL import Image

from service.errors import ServiceError
from service.imaging.decode import Slice, decode
from service.model.card import SplitFingerprint
from training.errors import TrainingError
from training.run.progress import progress

SplitName: TypeAlias = Literal["train", "val", "test"]


Counts: TypeAlias = Mapping[tuple[SplitName, str], int]


SPLITS: Final[tuple[SplitName, ...]] = get_args(SplitName)


LABELS: Final = ("NonCOVID", "COVID")
"""Names of class 0 and class 1; COVID is the positive class."""


OFFICIAL_COUNTS: Final[Counts] = {
    ("train", "COVID"): 191,
    ("train", "NonCOVID"): 234,
    ("val", "COVID"): 60,
    ("val", "NonCOVID"): 58,
    ("test", "COVID"): 98,
    ("test", "NonCOVID"): 105,
}
"""Images a split and class, as the authors published them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One image of the data set, decoded.

    Attributes:
        path: class folder and file name.
        label: 1 is COVID.
        sha256: of the file's bytes.
        encoding: the file's format and colour mode, as in `PNG RGBA`; only the shortcut audit looks at it.
        ct_slice: uint8 (1, H, W).
    """

    path: str
    label: int
    sha256: str
    encoding: str
    ct_slice: Slice


@dataclass(frozen=True)
class Split:
    """The scans of one split, in the order of its lists."""

    name: SplitName
    scans: tuple[Scan, ...]

    @cached_property
    def labels(self) -> torch.Tensor:
        """int64 (N,)."""
        return torch.tensor([scan.label for scan in self.scans])

    def where(self, chosen: torch.Tensor) -> "Split":
        """The scans that bool (N,) chooses, under the same name."""
        return Split(self.name, tuple(scan for scan, own in zip(self.scans, chosen.tolist(), strict=True) if own))

    def fingerprint(self) -> SplitFingerprint:
        """SHA-256 over the sorted file hashes, so that a card can name the data without carrying it."""
        return SplitFingerprint(count=len(self.scans), sha256=hash_of_files(scan.sha256 for scan in self.scans))


class CovidCt(NamedTuple):
    """The official split."""

    train: Split
    val: Split
    test: Split

    def fingerprints(self) -> dict[str, SplitFingerprint]:
        """The fingerprint of each split, by its name."""
        return {split.name: split.fingerprint() for split in self}

    def train_and_val(self) -> Split:
        """The slices that may be looked at as often as one likes, as one split."""
        return Split("train", self.train.scans + self.val.scans)


def read_covid_ct(root: Path, counts: Counts | None = OFFICIAL_COUNTS) -> CovidCt:
    """Read and check the whole data set.

    Args:
        root: folder with `Images-processed/` (zips, or the folders in them) and `Data-split/`.
        counts: images that each list must name; None accepts any number.

    Raises:
        TrainingError: something is missing, miscounted, undecodable or in two splits; names the file.
    """
    sources = {label: _open_images(root, label) for label in LABELS}
    splits = []
    for name in SPLITS:
        listed = [(label, file) for label in reversed(LABELS) for file in _read_list(root, name, label, counts)]
        bar = progress(listed, f"reading {name}", "slice")
        splits.append(Split(name, tuple(_read_scan(sources[label], label, file) for label, file in bar)))
    _check_disjoint(splits)
    return CovidCt(*splits)


def hash_of_files(hashes: Iterable[str]) -> str:
    """One SHA-256 for many files, given by their own, in any order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


_Images: TypeAlias = Mapping[str, zipfile.Path | Path]


def _open_images(root: Path, label: str) -> _Images:
    """File name -> path of one class's images, from the zip or the folder beside it."""
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
        raise TrainingError(f"{archive}: not a whole zip file ({error}); fetch it again") from error


def _read_list(root: Path, split: SplitName, label: str, counts: Counts | None) -> list[str]:
    path = root / "Data-split" / label / f"{split}CT_{label}.txt"
    try:
        names = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise TrainingError(f"{path}: can't read the split list: {error.strerror}") from error
    names = [name.strip() for name in names if name.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise TrainingError(f"{path}: {twice[0]} is listed twice")
    if counts is not None and len(names) != counts[split, label]:
        raise TrainingError(
            f"{path}: {len(names)} images are listed, the official split has {counts[split, label]}; "
            "pass --counts any for a split of your own"
        )
    if not names:
        raise TrainingError(f"{path}: the list is empty")
    return names


def _read_scan(images: _Images, label: str, file: str) -> Scan:
    path = f"CT_{label}/{file}"
    if file not in images:
        raise TrainingError(f"{path}: named by the split lists, but not among the images")
    data = images[file].read_bytes()
    try:
        ct_slice = decode(data)
        return Scan(path, LABELS.index(label), hashlib.sha256(data).hexdigest(), _encoding(data), ct_slice)
    except ServiceError as error:
        raise TrainingError(f"{path}: {error.detail}") from error


def _encoding(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return f"{image.format} {image.mode}"


def pixel_hash(ct_slice: Slice) -> bytes:
    """SHA-256 over the size and the grey values of a slice, whatever file it came in."""
    return hashlib.sha256(str(ct_slice.shape).encode() + ct_slice.tobytes()).digest()


def _check_disjoint(splits: list[Split]) -> None:
    """Refuse an image that is in two splits, as the same file or as the same grey values in another file."""
    seen: dict[bytes, tuple[SplitName, str]] = {}
    for split in splits:
        for scan in split.scans:
            where, path = seen.setdefault(pixel_hash(scan.ct_slice), (split.name, scan.path))
            if where != split.name:
                raise TrainingError(f"{scan.path} of {split.name} is the same image as {path} of {where}")
