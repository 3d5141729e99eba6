"""The linear probe: a head's linear layer fitted to frozen features, all at once and to the optimum.

425 slices overfit 20 million weights within epochs; a strongly regularised linear model on ImageNet features does not.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.preprocessing import StandardScaler

from training.data.batches import plain_batches
from training.data.covid_ct import Split
from training.learning.features import FeatureCache, linear_head, pooled_views
from training.network.heads import CovarianceHead
from training.network.slice_network import SliceNetwork
from training.recipe import Recipe
from training.run.machine import Machine
from training.run.progress import progress, say

_DIRECTIONS_STRIDE: Final = 4
"""Every fourth batch of slices sets the directions: tens of thousands of positions, for 512 channels."""


def fit_probe(
    network: SliceNetwork,
    split: Split,
    recipe: Recipe,
    machine: Machine,
    folds: torch.Tensor | None = None,
    cache: FeatureCache | None = None,
) -> torch.Tensor | None:
    """Fit the network's head to the split, in place; the features stay as they are.

    Args:
        folds: the fold that holds each slice out, int64 (N,), -1 for none; None asks for no such answers.
        cache: of features of plain slices.

    Returns:
        The answers of probes that were fitted without the fold, as `held_out_logits`.
    """
    fit_directions(network, split, recipe, machine)
    pooled, labels = pooled_views(network, split, recipe, machine, cache)
    _set_head(network, *_solve_views(pooled, labels, recipe))
    if folds is None:
        return None
    return held_out_logits(pooled, labels, folds, recipe, [pooled[: len(folds)]])[0]


def _set_head(network: SliceNetwork, weight: NDArray[np.float64], bias: float) -> None:
    head = linear_head(network)
    # a margin z for COVID against 0 is the same as z / 2 against - z / 2, and keeps the two outputs symmetric
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(np.stack([-weight, weight]) / 2))
        head.linear.bias.copy_(torch.tensor([-bias / 2, bias / 2]))


def fit_directions(network: SliceNetwork, split: Split, recipe: Recipe, machine: Machine) -> None:
    """Give a covariance head the principal directions of the split's maps, in place; labels play no part.

    Another head has none.
    """
    if not isinstance(network.head, CovarianceHead):
        return
    network.eval()
    seen: list[list[torch.Tensor]] = []
    batches = plain_batches(split, recipe.input_size)[::_DIRECTIONS_STRIDE]
    with torch.inference_mode(), machine.autocast():
        for batch in progress(batches, "finding directions", "batch"):
            seen.append(network.maps(batch.images.to(machine.device)))
    network.head.fit_directions([torch.cat(maps) for maps in zip(*seen, strict=True)])


def held_out_logits(
    pooled: torch.Tensor,
    labels: torch.Tensor,
    folds: torch.Tensor,
    recipe: Recipe,
    asked: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Answers to each slice by a probe that saw no view of its fold.

    Args:
        pooled, labels: of every view, as `pooled_views` gives them.
        folds: the fold that holds each slice out, int64 (N,); -1 for a slice that none does.
        recipe: the probe's.
        asked: what to answer: features of the slices, plain or altered, float32 (N, D) each.

    Returns:
        float32 (asked, N, 2); zero where no fold holds a slice out.
    """
    answers = torch.zeros(len(asked), len(folds), 2)
    for fold in range(int(folds.max()) + 1):
        say(f"probe without fold {fold}")
        held_out = folds == fold
        seen = ~held_out.repeat(recipe.probe_views)
        weight, bias = _solve_views(pooled[seen], labels[seen], recipe)
        for row, features in zip(answers, asked, strict=True):
            margin = torch.from_numpy(features[held_out].numpy() @ weight + bias).float()
            row[held_out] = torch.stack([-margin, margin], dim=1) / 2
    return answers


def _solve_views(pooled: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> tuple[NDArray[np.float64], float]:
    return solve(pooled.numpy(), labels.numpy(), recipe.probe_penalty * recipe.probe_views)


def solve(
    features: NDArray[np.float32], labels: NDArray[np.int64], penalty: float
) -> tuple[NDArray[np.float64], float]:
    """Regularised least squares on standardised features, expressed for the raw ones.

    Classes 0 and 1 are the targets -1 and 1 (regularised least-squares classification, Rifkin, Yeo & Poggio 2003). The
    weights lie in the span of the slices (representer theorem; Hastie & Tibshirani 2004, doi
    10.1093/biostatistics/kxh010), so that it is solved in as many dimensions as there are slices.

    Args:
        features: (N, D).
        labels: (N,), 0 or 1.
        penalty: squared length of the weights over squared error, for slices whose mean squared length is 1; so it
            means the same whatever D.

    Returns:
        Weight (D,) and bias of a margin for class 1; a temperature makes it a logit.
    """
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features).astype(np.float32)
    products = (scaled @ scaled.T).astype(np.float64)
    targets = 2.0 * labels - 1
    # standardised features have no mean, so the bias is that of the targets
    mean = targets.mean()
    products[np.diag_indices_from(products)] += penalty * np.trace(products) / len(products)
    shares = cho_solve(cho_factor(products, lower=True, overwrite_a=True), targets - mean)
    weight = scaled.T @ shares / scaler.scale_
    return weight, float(mean - weight @ scaler.mean_)
