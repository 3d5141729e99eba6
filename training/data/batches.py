"""Batches of slices: augmented for training, or plain, exactly like the service feeds them."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from training.data.covid_ct import Split
from training.data.transforms import as_input, compress
from training.recipe import Recipe
from training.run.seeding import derive_seed

_PLAIN_BATCH: Final = 16
"""Slices a batch where no gradient is taken; it changes memory and speed, not results."""


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


def plain_batches(split: Split, input_size: int) -> list[Batch]:
    """A split in order, exactly as the service would feed its slices: images uint8 (N, 1, input_size, input_size)."""
    items = [(as_input(s.ct_slice, input_size), s.label, s.path) for s in split.scans]
    return [_collate(items[start : start + _PLAIN_BATCH]) for start in range(0, len(items), _PLAIN_BATCH)]


def _collate(items: list[tuple[torch.Tensor, int, str]]) -> Batch:
    images, labels, paths = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), list(paths))
