"""Learning without labels: two views of a slice must be told to belong together.

VICReg: Bardes et al. 2022, arXiv 2105.04906. SimCLR: Chen et al. 2020, arXiv 2002.05709. Losses and projection heads
are lightly's, which is imported only where it is used: nothing else of the job needs it.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from training.config import Pretraining
from training.errors import TrainingError
from training.machine import Machine
from training.network import PooledHead, SliceNetwork, pool
from training.objective import Step, TensorBatch
from training.seeding import derive_seed
from training.views import draw_views, random_view


def require_lightly(method: str) -> None:
    """Find lightly without importing it.

    Raises:
        TrainingError: it is not installed.
    """
    if importlib.util.find_spec("lightly") is None:
        raise TrainingError(
            f"--method {method} needs lightly, which is not installed: "
            "pip install -c constraints.txt '.[training,pretraining]'"
        )


class ViewPairs(Dataset[tuple[torch.Tensor, ...]]):
    """Two views of each image, uint8 (1, V, V); an item depends on seed, epoch and index alone."""

    def __init__(self, images: Sequence[torch.Tensor], settings: Pretraining, epoch: int) -> None:
        self._images = images
        self._seed = derive_seed(settings.seed, "views", epoch)
        self._view = random_view(settings)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return draw_views(self._view, self._images[index], 2, self._seed, index)


class SelfSupervised:
    """VICReg or SimCLR on pooled features.

    Args:
        network: whose activations are pooled; its own head plays no part.
        images: uint8 (1, H, W) each.

    Raises:
        TrainingError: fewer images than a batch has.
    """

    def __init__(
        self, network: SliceNetwork, images: Sequence[torch.Tensor], settings: Pretraining, machine: Machine
    ) -> None:
        if len(images) < settings.batch_size:
            raise TrainingError(f"{len(images)} slices don't fill a batch; lower --batch-size {settings.batch_size}")
        features = cast(PooledHead, network.head).linear.in_features  # Pretraining.recipe has a pooled head
        self._network = network
        self._images = images
        self._settings = settings
        self._machine = machine
        self._criterion = _make_loss(settings)
        self.heads = _make_head(settings, features).to(machine.device)
        self.count = len(images)

    def batches(self, epoch: int) -> Iterable[TensorBatch]:
        """Whole batches of first and second views in random order; the few slices that fill none wait an epoch."""
        order = torch.Generator().manual_seed(derive_seed(self._settings.seed, "order", epoch))
        loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(
            ViewPairs(self._images, self._settings, epoch),
            batch_size=self._settings.batch_size,
            shuffle=True,
            generator=order,
            num_workers=self._machine.workers,
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
        )
        return loader

    def step(self, batch: TensorBatch) -> Step:
        """The loss of two views of each slice, uint8 (N, 1, V, V) each."""
        views = torch.cat(list(batch)).to(self._machine.device, non_blocking=True)
        with self._machine.autocast():
            maps = self._network.maps(views)
        # the head's batch norms see one view at a time, as in the authors' code
        first, second = (self.heads(each) for each in pool(maps).chunk(2))
        return Step(self._criterion(first, second), right=None)


def _make_head(settings: Pretraining, features: int) -> nn.Module:
    from lightly.models.modules.heads import SimCLRProjectionHead, VICRegProjectionHead

    make = VICRegProjectionHead if settings.method == "vicreg" else SimCLRProjectionHead
    head: nn.Module = make(features, settings.projection_width, settings.projection_size)
    return head


def _make_loss(settings: Pretraining) -> nn.Module:
    from lightly.loss import NTXentLoss, VICRegLoss

    loss: nn.Module = VICRegLoss() if settings.method == "vicreg" else NTXentLoss(settings.temperature)
    return loss
