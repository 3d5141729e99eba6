"""Features and logits of slices, without gradients; features of a frozen network are computed once."""

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import cast

import torch

from training.data.batches import augmented_inputs, in_batches, plain_inputs
from training.data.covid_ct import Split
from training.network.heads import CovarianceHead, PooledHead
from training.network.slice_network import SliceNetwork
from training.recipe import ProbeSettings, Recipe
from training.run.machine import Machine
from training.run.progress import progress


class FeatureCache:
    """In-memory cache of features from frozen networks.

    Seeds of a probe differ in their augmented views only. The plain slices, most of the work, are the same for all.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, torch.Tensor] = {}

    def rows(
        self, weights: Iterable[torch.Tensor], images: torch.Tensor, precision: str, compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Return cached features for identical weights, images and precision, or compute them.

        Args:
            weights: everything except the images that the features depend on.
            images: uint8 (N, 1, S, S).
            precision: number format of the computation.
            compute: returns float32 (N, D), which must not be changed in place.
        """
        hashed = sha256(precision.encode())
        for tensor in (*weights, images):
            hashed.update(str(tuple(tensor.shape)).encode())
            hashed.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        key = hashed.digest()
        if key not in self._rows:
            self._rows[key] = compute()
        return self._rows[key]


def probe_features(
    network: SliceNetwork, split: Split, recipe: Recipe, machine: Machine, cache: FeatureCache | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the head's features of all views of a split: the plain slices first, then the augmented views.

    Returns:
        Features float32 (V N, D) and labels int64 (V N,) for V views, on the CPU.
    """
    views = cast(ProbeSettings, recipe.probe).views
    plain = plain_inputs(split, recipe.network.input_size)
    features = [head_features(network, plain, machine, "features of slices", cache)]
    for view in range(1, views):
        augmented = augmented_inputs(split, recipe, -view, workers=machine.workers)
        features.append(head_features(network, augmented, machine, f"features of slices, view {view}"))
    return torch.cat(features), split.labels.repeat(views)


def head_features(
    network: SliceNetwork, images: torch.Tensor, machine: Machine, title: str, cache: FeatureCache | None = None
) -> torch.Tensor:
    """Return the input of the head's linear layer for uint8 (N, 1, S, S) images: float32 (N, D), on the CPU."""
    head = linear_head(network)

    def compute() -> torch.Tensor:
        return pooled_features(network, images, head.pooled, machine, title)

    if cache is None:
        return compute()
    shape = [torch.tensor(network.normalise.magnify), torch.tensor(network.features.places)]
    directions = [head.directions] if isinstance(head, CovarianceHead) else []
    weights = [*shape, *network.features.state_dict().values(), *directions]
    return cache.rows(weights, images, str(machine.autocast_dtype), compute)


def pooled_features(
    network: SliceNetwork,
    images: torch.Tensor,
    pooling: Callable[[list[torch.Tensor]], torch.Tensor],
    machine: Machine,
    title: str,
) -> torch.Tensor:
    """Pool the maps of uint8 (N, 1, S, S) images, outside autocast: float32 (N, D), on the CPU."""
    network.eval()
    rows = []
    with torch.inference_mode():
        for batch in progress(in_batches(images), title, "batch"):
            with machine.autocast():
                maps = network.maps(batch.to(machine.device))
            rows.append(pooling(maps).cpu())
    return torch.cat(rows)


def predict_logits(network: SliceNetwork, split: Split, machine: Machine, input_size: int) -> torch.Tensor:
    """Return the logits of a split with the service's preparation of slices: float32 (N, 2), on the CPU."""
    network.eval()
    rows = []
    batches = in_batches(plain_inputs(split, input_size))
    with torch.inference_mode(), machine.autocast():
        for batch in progress(batches, f"evaluating {split.name}", "batch"):
            rows.append(network(batch.to(machine.device)).float().cpu())
    return torch.cat(rows)


def probe_logits(
    network: SliceNetwork, split: Split, machine: Machine, input_size: int, cache: FeatureCache
) -> torch.Tensor:
    """Return the same as `predict_logits` for a network with a linear head, with cached features."""
    images = plain_inputs(split, input_size)
    features = head_features(network, images, machine, f"evaluating {split.name}", cache)
    linear = linear_head(network).linear
    return torch.nn.functional.linear(features, linear.weight.detach().cpu(), linear.bias.detach().cpu())


def linear_head(network: SliceNetwork) -> PooledHead | CovarianceHead:
    """Return the head of a network that can have a probe."""
    return cast(PooledHead | CovarianceHead, network.head)  # Recipe allows a probe for no other head
