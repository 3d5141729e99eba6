"""The linear probe: the pooled head fitted to frozen features, all at once and to the optimum.

425 slices overfit 20 million weights within epochs; a strongly regularised linear model on ImageNet features does not.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.config import Recipe
from training.data import Batch, Split, plain_batches, training_batches
from training.machine import Machine
from training.network import PooledHead, SliceNetwork, pool
from training.progress import progress


def fit_probe(network: SliceNetwork, split: Split, recipe: Recipe, machine: Machine) -> None:
    """Fit the network's pooled head to the split, in place; the features stay as they are."""
    pooled, labels = pooled_views(network, split, recipe, machine)
    weight, bias = solve(pooled.numpy(), labels.numpy(), recipe.probe_strength / recipe.probe_views)
    head = cast(PooledHead, network.head)  # Recipe allows a probe for no other
    # a logit z for COVID against 0 is the same as z / 2 against - z / 2, and keeps the two outputs symmetric
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(np.stack([-weight, weight]) / 2))
        head.linear.bias.copy_(torch.tensor([-bias / 2, bias / 2]))


def pooled_views(
    network: SliceNetwork, split: Split, recipe: Recipe, machine: Machine
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled features of every view of a split: the plain slices, then `probe_views` - 1 augmented ones.

    Returns:
        float32 (V N, 1024) and int64 (V N,), on the CPU.
    """
    batches = plain_batches(split, recipe.input_size)
    for view in range(1, recipe.probe_views):
        batches += training_batches(split, recipe, -view, workers=machine.workers, shuffle=False)
    pooled = pooled_features(network, batches, machine, "probing features")
    return pooled, torch.cat([batch.labels for batch in batches])


def pooled_features(network: SliceNetwork, batches: list[Batch], machine: Machine, title: str) -> torch.Tensor:
    """float32 (N, 1024), on the CPU."""
    network.eval()
    rows = []
    with torch.inference_mode(), machine.autocast():
        for batch in progress(batches, title, "batch"):
            rows.append(pool(network.maps(batch.images.to(machine.device))).cpu())
    return torch.cat(rows)


def solve(
    features: NDArray[np.float32], labels: NDArray[np.int64], strength: float
) -> tuple[NDArray[np.float64], float]:
    """L2-regularised logistic regression on standardised features, expressed for the raw ones.

    Args:
        features: (N, D).
        labels: (N,), 0 or 1.
        strength: inverse penalty (scikit-learn's C).

    Returns:
        Weight (D,) and bias of the logit of class 1.
    """
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=strength, max_iter=5000).fit(scaler.transform(features), labels)
    weight = model.coef_[0] / scaler.scale_
    return weight, float(model.intercept_[0] - weight @ scaler.mean_)
