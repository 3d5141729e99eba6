"""Features of slices from a frozen network, computed once for equal weights and slices."""

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import cast

import torch

from training.data.batches import Batch, plain_batches, training_batches
from training.data.covid_ct import Split
from training.network.heads import CovarianceHead, PooledHead
from training.network.slice_network import SliceNetwork
from training.recipe import Recipe
from training.run.machine import Machine
from training.run.progress import progress


class FeatureCache:
    """Features by all that they are a function of, in memory.

    Seeds of a probe differ in its augmented views; of the plain slices, most of the work, all see the same.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, torch.Tensor] = {}

    def rows(
        self,
        weights: Iterable[torch.Tensor],
        images: Iterable[torch.Tensor],
        precision: str,
        compute: Callable[[], torch.Tensor],
    ) -> torch.Tensor:
        """What `compute` answers, or answered when it was last asked for the same to the last bit.

        Args:
            weights: all that the features depend on beside the images.
            images: uint8, in order.
            precision: that they are computed in.
            compute: float32 (N, D); not to be changed in place.
        """
        hashed = sha256(precision.encode())
        for tensor in (*weights, *images):
            hashed.update(str(tuple(tensor.shape)).encode())
            hashed.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        key = hashed.digest()
        if key not in self._rows:
            self._rows[key] = compute()
        return self._rows[key]


def pooled_views(
    network: SliceNetwork, split: Split, recipe: Recipe, machine: Machine, cache: FeatureCache | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the head sees of every view of a split: the plain slices, then `probe_views` - 1 augmented ones.

    Returns:
        float32 (V N, D) and int64 (V N,), on the CPU.
    """
    plain = plain_batches(split, recipe.input_size)
    pooled = [head_features(network, plain, machine, "probing features", cache)]
    for view in range(1, recipe.probe_views):
        augmented = list(training_batches(split, recipe, -view, workers=machine.workers, shuffle=False))
        pooled.append(head_features(network, augmented, machine, f"probing features, view {view}"))
    return torch.cat(pooled), split.labels.repeat(recipe.probe_views)


def probe_logits(
    network: SliceNetwork, split: Split, recipe: Recipe, machine: Machine, cache: FeatureCache
) -> torch.Tensor:
    """`engine.predict_logits` of a network with a linear head, by way of its features: float32 (N, 2), on the CPU."""
    batches = plain_batches(split, recipe.input_size)
    features = head_features(network, batches, machine, f"evaluating {split.name}", cache)
    linear = linear_head(network).linear
    return torch.nn.functional.linear(features, linear.weight.detach().cpu(), linear.bias.detach().cpu())


def head_features(
    network: SliceNetwork, batches: list[Batch], machine: Machine, title: str, cache: FeatureCache | None = None
) -> torch.Tensor:
    """What the head's linear layer sees of each slice: float32 (N, D), on the CPU."""
    head = linear_head(network)

    def compute() -> torch.Tensor:
        return pooled_features(network, batches, head.pooled, machine, title)

    if cache is None:
        return compute()
    shape = [torch.tensor(network.normalise.magnify), torch.tensor(network.features.places)]
    own = [head.directions] if isinstance(head, CovarianceHead) else []
    weights = [*shape, *network.features.state_dict().values(), *own]
    return cache.rows(weights, [batch.images for batch in batches], str(machine.autocast_dtype), compute)


def pooled_features(
    network: SliceNetwork,
    batches: list[Batch],
    pooling: Callable[[list[torch.Tensor]], torch.Tensor],
    machine: Machine,
    title: str,
) -> torch.Tensor:
    """The maps of each slice, pooled outside of autocast: float32 (N, D), on the CPU."""
    network.eval()
    rows = []
    with torch.inference_mode():
        for batch in progress(batches, title, "batch"):
            with machine.autocast():
                maps = network.maps(batch.images.to(machine.device))
            rows.append(pooling(maps).cpu())
    return torch.cat(rows)


def linear_head(network: SliceNetwork) -> PooledHead | CovarianceHead:
    return cast(PooledHead | CovarianceHead, network.head)  # Recipe allows a probe for no other
