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
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from service.artifact import SplitFingerprint
from service.errors import ServiceError
from service.image import Slice, decode, to_input
from training.config import Recipe
from training.errors import TrainingError
from training.progress import progress
from training.seeding import derive_seed

SplitName: TypeAlias = Literal["train", "val", "test"]
Counts: TypeAlias = Mapping[tuple[SplitName, str], int]

_PLAIN_BATCH: Final = 16
"""Slices a batch where no gradient is taken; it changes memory and speed, not results."""

_JPEG_QUALITY: Final = (30, 96)

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


class Batch(NamedTuple):
    """What a loader yields.

    Attributes:
        images: uint8 (N, 1, S, S).
        labels: int64 (N,), 1 is COVID.
        paths: where each image came from.
    """

    images: torch.Tensor
    labels: torch.Tensor
    paths: list[str]


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


class TrainingSlices(Dataset[tuple[torch.Tensor, int, str]]):
    """A split under the training transforms: Resize 256, JPEG now and then, RandomResizedCrop, flip.

    An item's augmentation depends on seed, epoch and index alone, so neither the number of worker processes nor a
    resume changes it.
    """

    def __init__(self, split: Split, recipe: Recipe, epoch: int) -> None:
        self._scans = split.scans
        self._seed = derive_seed(recipe.seed, "augmentation", epoch)
        self._transform = v2.Compose(
            [
                v2.Resize(recipe.resize, antialias=True),
                # after the resize, so that the blocks lie as in a file of that size
                v2.RandomApply([v2.Lambda(compress)], p=recipe.jpeg_probability),
                v2.RandomResizedCrop(recipe.input_size, scale=(recipe.crop_scale_min, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return len(self._scans)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, str]:
        scan = self._scans[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self._seed, "item", index))
            return self._transform(torch.from_numpy(scan.ct_slice.copy())), scan.label, scan.path


def training_batches(
    split: Split, recipe: Recipe, epoch: int, *, workers: int = 0, shuffle: bool = True
) -> Iterable[Batch]:
    """Augmented batches of one epoch; the last one may be smaller, but never a single slice if shuffled.

    A batch of one slice has no variance of its own for a batch norm to learn from.
    """
    dataset = TrainingSlices(split, recipe, epoch)
    order = torch.Generator().manual_seed(derive_seed(recipe.seed, "order", epoch))
    loader: DataLoader[tuple[torch.Tensor, int, str]] = DataLoader(
        dataset,
        batch_size=recipe.batch_size,
        shuffle=shuffle,
        generator=order,
        num_workers=workers,
        collate_fn=_collate,
        drop_last=shuffle and len(dataset) % recipe.batch_size == 1,
        pin_memory=torch.cuda.is_available(),
    )
    return loader


def compress(image: torch.Tensor) -> torch.Tensor:
    """uint8 (1, H, W) through a JPEG file of some quality and back; torchvision's own way is about to leave it."""
    file = io.BytesIO()
    quality = int(torch.randint(*_JPEG_QUALITY, ()))
    Image.fromarray(image[0].numpy()).save(file, "JPEG", quality=quality)
    return torch.tensor(decode(file.getvalue()))


def as_input(ct_slice: Slice, side: int) -> torch.Tensor:
    """As the network that serves sees it: uint8 (1, side, side)."""
    return torch.from_numpy(to_input(ct_slice, side))


def plain_batches(split: Split, input_size: int) -> list[Batch]:
    """A split in order, exactly as the service would feed its slices: images uint8 (N, 1, input_size, input_size)."""
    items = [(as_input(s.ct_slice, input_size), s.label, s.path) for s in split.scans]
    return [_collate(items[start : start + _PLAIN_BATCH]) for start in range(0, len(items), _PLAIN_BATCH)]


def _collate(items: list[tuple[torch.Tensor, int, str]]) -> Batch:
    images, labels, paths = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), list(paths))


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
