"""Learning from several labelled sets at once, as Wang et al. 2020 (arXiv 2009.07652) did for COVID-CT and another.

Scanners and papers' images differ in grey values and grain: each set, or domain, is normalised with statistics of its
own, while convolutions and the batch norms' weights are shared.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import cast

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from training.config import Pretraining
from training.data import LABELS
from training.errors import TrainingError
from training.machine import Machine
from training.network import PooledHead, SliceNetwork, pool
from training.objective import Step, TensorBatch
from training.other_ct import CtSet
from training.seeding import derive_seed
from training.views import draw_views, random_view


class DomainBatchNorm(nn.Module):
    """Batch norms that share weight and bias, and keep the mean and variance of one domain each.

    Attributes:
        norms: one a domain, each starts with the statistics of the given one.
        domain: whose slices come through next.
    """

    def __init__(self, norm: nn.BatchNorm2d, domains: int) -> None:
        super().__init__()
        norms = [copy.deepcopy(norm) for _ in range(domains)]
        for each in norms[1:]:
            each.weight, each.bias = norms[0].weight, norms[0].bias
        self.norms = nn.ModuleList(norms)
        self.domain = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.norms[self.domain](x))


def split_batch_norms(features: nn.Sequential, domains: int) -> list[DomainBatchNorm]:
    """Give each domain its own statistics in the batch norms that learn, in place; the new ones, in order."""
    new = []
    for place, layer in enumerate(features):
        if isinstance(layer, nn.BatchNorm2d) and layer.weight.requires_grad:
            new.append(DomainBatchNorm(layer, domains))
            features[place] = new[-1]
    return new


class BalancedBatches(Sampler[list[int]]):
    """Batches with as many slices of each group; an epoch ends when each slice was in one, those of small groups often.

    Args:
        groups: indices of the slices of each class of each set.
        batch_size: a multiple of the number of groups.
        seed: of the order.
    """

    def __init__(self, groups: Sequence[Sequence[int]], batch_size: int, seed: int) -> None:
        self._groups = groups
        self._each = batch_size // len(groups)
        self._seed = seed

    def __len__(self) -> int:
        return -(-max(map(len, self._groups)) // self._each)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed)
        streams = [_shuffled_for_ever(group, generator) for group in self._groups]
        for _ in range(len(self)):
            yield [index for stream in streams for index in islice(stream, self._each)]


def _shuffled_for_ever(indices: Sequence[int], generator: torch.Generator) -> Iterator[int]:
    """All of them in random order, then all again in another."""
    while True:
        for place in torch.randperm(len(indices), generator=generator).tolist():
            yield indices[place]


class LabelledViews(Dataset[tuple[torch.Tensor, int, int]]):
    """A view uint8 (1, V, V), the label and the domain of each slice; it depends on seed, epoch and index alone."""

    def __init__(self, sets: Sequence[CtSet], settings: Pretraining, epoch: int) -> None:
        self._slices = [
            (image, label, domain)
            for domain, each in enumerate(sets)
            for image, label in zip(each.images, each.labels, strict=True)
        ]
        self._seed = derive_seed(settings.seed, "views", epoch)
        self._view = random_view(settings)

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image, label, domain = self._slices[index]
        return draw_views(self._view, image, 1, self._seed, index)[0], label, domain

    def groups(self) -> list[list[int]]:
        """Indices of the slices of each class of each set, sets outermost."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, (_, label, domain) in enumerate(self._slices):
            groups.setdefault((domain, label), []).append(index)
        return [groups[key] for key in sorted(groups)]


class Joint:
    """Cross-entropy of a linear head for each set, on features that are shared.

    Args:
        network: whose activations are pooled; its own head plays no part, its batch norms are split in place.
        sets: with labels; the first one's statistics are those that are kept.

    Raises:
        TrainingError: one set alone, or a batch that can't have as many of each class of each set.
    """

    def __init__(self, network: SliceNetwork, sets: Sequence[CtSet], settings: Pretraining, machine: Machine) -> None:
        if len(sets) < 2:
            raise TrainingError(
                f"--method joint needs --other-ct DIR with the folders {' and '.join(reversed(LABELS))}"
            )
        kinds = len(sets) * len(LABELS)
        if settings.batch_size % kinds:
            raise TrainingError(
                f"--batch-size {settings.batch_size}: must be a multiple of {kinds}, "
                f"for as many of both classes of {len(sets)} sets"
            )
        self._network = network
        self._sets = sets
        self._settings = settings
        self._machine = machine
        self._norms = [] if settings.freeze_batch_norm else split_batch_norms(network.features, len(sets))
        features = cast(PooledHead, network.head).linear.in_features  # Pretraining.recipe has a pooled head
        self.heads: nn.Module = nn.ModuleList(nn.Linear(features, len(LABELS)) for _ in sets).to(machine.device)
        self.count = sum(len(each.images) for each in sets)

    def batches(self, epoch: int) -> Iterable[TensorBatch]:
        """Balanced batches of views uint8 (N, 1, V, V), labels and domains int64 (N,)."""
        dataset = LabelledViews(self._sets, self._settings, epoch)
        order = derive_seed(self._settings.seed, "order", epoch)
        loader: DataLoader[tuple[torch.Tensor, int, int]] = DataLoader(
            dataset,
            batch_sampler=BalancedBatches(dataset.groups(), self._settings.batch_size, order),
            generator=torch.Generator().manual_seed(order),
            num_workers=self._machine.workers,
            pin_memory=torch.cuda.is_available(),
        )
        return loader

    def step(self, batch: TensorBatch) -> Step:
        """The mean of the sets' cross-entropies."""
        views, labels, domains = (each.to(self._machine.device, non_blocking=True) for each in batch)
        losses, right = [], 0
        for domain, head in enumerate(cast(nn.ModuleList, self.heads)):
            mine = domains == domain
            logits = head(self._pooled(views[mine], domain))
            losses.append(nn.functional.cross_entropy(logits, labels[mine]))
            right += int((logits.argmax(1) == labels[mine]).sum())
        return Step(torch.stack(losses).mean(), right)

    def _pooled(self, views: torch.Tensor, domain: int) -> torch.Tensor:
        """float32 (N, D) features of one domain's slices."""
        for norm in self._norms:
            norm.domain = domain
        with self._machine.autocast():
            maps = self._network.maps(views)
        return pool(maps)
