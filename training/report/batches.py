"""Augmented training batches of the report's recipe."""

from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from training.data.covid_ct import Split
from training.report_recipe import ReportRecipe
from training.run.seeding import derive_seed

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Images, uint8 (N, 1, S, S), and labels, int64 (N,), 1 is COVID."""


class TrainingSlices(Dataset[tuple[torch.Tensor, int]]):
    """A split under the training transforms: resize, random crop, flip.

    The augmentation of an item depends on seed, epoch and index alone. Neither the number of worker processes nor a
    resumed run changes it.
    """

    def __init__(self, split: Split, recipe: ReportRecipe, epoch: int) -> None:
        self._slices = split.slices
        self._seed = derive_seed(recipe.seed, "augmentation", epoch)
        self._transform = v2.Compose(
            [
                v2.Resize(recipe.resize, antialias=True),
                v2.RandomResizedCrop(recipe.input_size, scale=(recipe.crop_scale_min, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        labelled = self._slices[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self._seed, "item", index))
            return self._transform(torch.from_numpy(labelled.pixels.copy())), labelled.label


def training_batches(split: Split, recipe: ReportRecipe, epoch: int, *, workers: int = 0) -> Iterable[Batch]:
    """Load the augmented batches of one epoch in random order.

    The last batch may be smaller. A last batch of one slice is dropped, because a batch norm needs two.
    """
    dataset = TrainingSlices(split, recipe, epoch)
    return DataLoader(
        dataset,
        batch_size=recipe.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(derive_seed(recipe.seed, "order", epoch)),
        num_workers=workers,
        drop_last=len(dataset) % recipe.batch_size == 1,
        pin_memory=torch.cuda.is_available(),
    )
