"""The linear probe: a head's linear layer, fitted to frozen features in one step.

425 slices overfit 20 million weights within a few epochs; a strongly regularised linear model on ImageNet's features
does not.
"""

from collections.abc import Sequence
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.preprocessing import StandardScaler

from training.data.batches import in_batches, plain_inputs
from training.data.covid_ct import Split
from training.learning.features import FeatureCache, linear_head, probe_features
from training.network.heads import CovarianceHead
from training.network.slice_network import SliceNetwork
from training.recipe import ProbeSettings, Recipe
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
    """Fit the network's head to the split, in place; the convolutions do not change.

    Args:
        folds: fold that holds each slice out, int64 (N,), -1 for none; None: no out-of-fold answers.
        cache: of features of plain slices.

    Returns:
        Answers of probes that were fitted without the fold, as in `held_out_logits`.
    """
    settings = probe_settings(recipe)
    fit_directions(network, split, recipe, machine)
    features, labels = probe_features(network, split, recipe, machine, cache)
    _set_head(network, *_solve_views(features, labels, settings))
    if folds is None:
        return None
    return held_out_logits(features, labels, folds, settings, [features[: len(folds)]])[0]


def fit_directions(network: SliceNetwork, split: Split, recipe: Recipe, machine: Machine) -> None:
    """Set the directions of a covariance head from the split's maps, in place, without labels.

    Does nothing for another head.
    """
    if not isinstance(network.head, CovarianceHead):
        return
    network.eval()
    seen: list[list[torch.Tensor]] = []
    batches = in_batches(plain_inputs(split, recipe.network.input_size))[::_DIRECTIONS_STRIDE]
    with torch.inference_mode(), machine.autocast():
        for batch in progress(batches, "finding directions", "batch"):
            seen.append(network.maps(batch.to(machine.device)))
    network.head.fit_directions([torch.cat(maps) for maps in zip(*seen, strict=True)])


def held_out_logits(
    features: torch.Tensor,
    labels: torch.Tensor,
    folds: torch.Tensor,
    settings: ProbeSettings,
    queries: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Return answers to each slice by a probe that was fitted to no view of its fold.

    Args:
        features, labels: of all views, from `probe_features`.
        folds: fold that holds each slice out, int64 (N,); -1 for a slice that no fold holds out.
        settings: of the probe.
        queries: features to answer, of the plain or of altered slices: float32 (N, D) each.

    Returns:
        float32 (queries, N, 2); zero where no fold holds a slice out.
    """
    answers = torch.zeros(len(queries), len(folds), 2)
    for fold in range(int(folds.max()) + 1):
        say(f"probe without fold {fold}")
        held_out = folds == fold
        seen = ~held_out.repeat(settings.views)
        weight, bias = _solve_views(features[seen], labels[seen], settings)
        for row, query in zip(answers, queries, strict=True):
            margin = torch.from_numpy(query[held_out].numpy() @ weight + bias).float()
            row[held_out] = torch.stack([-margin, margin], dim=1) / 2
    return answers


def solve(
    features: NDArray[np.float32], labels: NDArray[np.int64], penalty: float
) -> tuple[NDArray[np.float64], float]:
    """Solve regularised least squares on standardised features; return weights for the raw features.

    Classes 0 and 1 are the targets -1 and 1 (regularised least-squares classification, Rifkin, Yeo & Poggio 2003). The
    weights lie in the span of the slices (representer theorem; Hastie & Tibshirani 2004, doi
    10.1093/biostatistics/kxh010), so the system has as many unknowns as there are slices.

    Args:
        features: (N, D).
        labels: (N,), 0 or 1.
        penalty: weight of the squared length of the weights against the squared error, for slices of mean squared
            length 1; so it means the same for every D.

    Returns:
        Weight (D,) and bias of a margin for class 1; a temperature makes it a logit.
    """
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features).astype(np.float32)
    products = (scaled @ scaled.T).astype(np.float64)
    targets = 2.0 * labels - 1
    # the mean of standardised features is 0, so the bias is the mean of the targets
    mean = targets.mean()
    products[np.diag_indices_from(products)] += penalty * np.trace(products) / len(products)
    shares = cho_solve(cho_factor(products, lower=True, overwrite_a=True), targets - mean)
    weight = scaled.T @ shares / scaler.scale_
    return weight, float(mean - weight @ scaler.mean_)


def probe_settings(recipe: Recipe) -> ProbeSettings:
    """Return the probe's settings of a recipe that has a probe."""
    return cast(ProbeSettings, recipe.probe)


def _solve_views(
    features: torch.Tensor, labels: torch.Tensor, settings: ProbeSettings
) -> tuple[NDArray[np.float64], float]:
    return solve(features.numpy(), labels.numpy(), settings.penalty * settings.views)


def _set_head(network: SliceNetwork, weight: NDArray[np.float64], bias: float) -> None:
    head = linear_head(network)
    # a margin z against 0 equals z / 2 against -z / 2, which keeps the two outputs symmetric
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(np.stack([-weight, weight]) / 2))
        head.linear.bias.copy_(torch.tensor([-bias / 2, bias / 2]))
