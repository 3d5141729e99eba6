"""Sets of CT slices to learn from without COVID-CT's labels: its own training split, and folders of other slices."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from service.artifact import SplitFingerprint
from service.errors import ServiceError, UnsupportedImageError
from service.image import Slice, decode
from training.data import LABELS, Split, hash_of_files, pixel_hash
from training.errors import TrainingError
from training.progress import progress, say
from training.views import shrink


@dataclass(frozen=True, slots=True)
class CtSet:
    """Slices of one source, small enough to be kept.

    Attributes:
        name: where they are from.
        images: uint8 (1, H, W) each, of the size that was asked for.
        labels: one an image, 1 is COVID; none in a set without labels.
        sha256: over the sorted hashes of the files, with their labels if they have any.
    """

    name: str
    images: tuple[torch.Tensor, ...]
    labels: tuple[int, ...]
    sha256: str

    def fingerprint(self) -> SplitFingerprint:
        """As that of a split."""
        return SplitFingerprint(count=len(self.images), sha256=self.sha256)


class CtFolders:
    """Reads folders of CT slices, and leaves out what must not be seen.

    Only the same grey values at the same size are recognised: a copy that was scaled or compressed again is not.

    Args:
        held_out: COVID-CT's validation and test splits.
        prepare: makes of a slice what is kept of it: uint8 (1, H, W) of the wanted size.
    """

    def __init__(self, held_out: tuple[Split, ...], prepare: Callable[[Slice], torch.Tensor]) -> None:
        self._held_out = {pixel_hash(scan.ct_slice): scan.path for split in held_out for scan in split.scans}
        self._prepare = prepare

    def read(self, folder: Path) -> CtSet:
        """Every image below a folder; labels, names of folders and files that are no images are ignored.

        Raises:
            TrainingError: no folder, no images, or a damaged one; names it.
        """
        hashes, images = self._read(folder)
        return CtSet(str(folder), images, (), hash_of_files(hashes))

    def read_labelled(self, folder: Path) -> CtSet:
        """Every image below the folders COVID and NonCOVID of a folder.

        Raises:
            TrainingError: no such folder, no images in it, or a damaged one; names it.
        """
        hashes: list[str] = []
        images: tuple[torch.Tensor, ...] = ()
        labels: tuple[int, ...] = ()
        for label, name in enumerate(LABELS):
            its_hashes, its_images = self._read(folder / name)
            hashes += [f"{name} {each}" for each in its_hashes]
            images += its_images
            labels += (label,) * len(its_images)
        return CtSet(str(folder), images, labels, hash_of_files(hashes))

    def _read(self, folder: Path) -> tuple[list[str], tuple[torch.Tensor, ...]]:
        """The files' hashes and the images."""
        if not folder.is_dir():
            raise TrainingError(
                f"{folder}: no such folder; --other-ct must name a folder of CT slices, "
                f"for --method joint with the folders {' and '.join(reversed(LABELS))}"
            )
        rows = list(self._slices(folder))
        if not rows:
            raise TrainingError(f"{folder}: no images in it; --other-ct must name a folder of CT slices")
        hashes, images = zip(*rows, strict=True)
        return list(hashes), images

    def _slices(self, folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
        """Hash of the file and image, in the order of the names."""
        left_out = []
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in progress(paths, f"reading {folder}", "file"):
            data = path.read_bytes()
            try:
                ct_slice = decode(data)
            except UnsupportedImageError:
                continue  # notes and tables lie beside the images of most data sets
            except ServiceError as error:
                raise TrainingError(f"{path}: {error.detail}") from error
            if pixel_hash(ct_slice) in self._held_out:
                left_out.append(path)
            else:
                yield sha256(data).hexdigest(), self._prepare(ct_slice)
        if left_out:
            say(f"{folder}: {len(left_out)} left out, slices of COVID-CT's validation or test, as {left_out[0]}")


def name_of(folder: Path) -> str:
    """What the card calls a folder's set: the folder's own name, whatever it was called on the command line."""
    return folder.resolve().name


def fingerprints(splits: Iterable[Split], other_ct: Iterable[CtSet]) -> dict[str, SplitFingerprint]:
    """What a network was made from, for its card: COVID-CT's splits, and other sets by their folders' names."""
    others = {f"other CT: {name_of(Path(each.name))}": each.fingerprint() for each in other_ct}
    return {split.name: split.fingerprint() for split in splits} | others


def set_of(split: Split, side: int) -> CtSet:
    """A split of COVID-CT as a set, its shorter sides resized to `side` pixels."""
    images = tuple(shrink(scan.ct_slice, side) for scan in split.scans)
    return CtSet("COVID-CT", images, tuple(scan.label for scan in split.scans), split.fingerprint().sha256)
