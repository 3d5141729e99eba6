"""The linear probe: a head's linear layer fitted to frozen features, all at once and to the optimum.

425 slices overfit 20 million weights within epochs; a strongly regularised linear model on ImageNet features does not.
"""

from collections.abc import Callable, Sequence
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.config import Recipe
from training.data import Batch, Split, batches_of, plain_batches, training_batches
from training.machine import Machine
from training.network import CovarianceHead, PooledHead, SliceNetwork
from training.other_ct import CtSet
from training.progress import progress, say
from training.whitening import Whitening

_DIRECTIONS_STRIDE: Final = 4
"""Every fourth batch of slices sets the directions: tens of thousands of positions, for 512 channels."""


_SPAN: Final = 1e-7
"""Share of the largest variance below which a direction is rounding, and no slice's own."""


def fit_probe(
    network: SliceNetwork,
    split: Split,
    recipe: Recipe,
    machine: Machine,
    other_ct: Sequence[CtSet] = (),
    folds: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Fit the network's head to the split, in place; the features stay as they are.

    Args:
        other_ct: slices to whiten by, of the network's input size; their labels play no part.
        folds: the fold that holds each slice out, int64 (N,), -1 for none; None asks for no such answers.

    Returns:
        The answers of probes that were fitted without the fold, as `held_out_logits`.
    """
    fit_directions(network, split, recipe, machine)
    whitening = fit_whitening(network, other_ct, recipe, machine)
    pooled, labels = pooled_views(network, split, recipe, machine)
    _set_head(network, *_solve_views(pooled, labels, recipe, whitening))
    if folds is None:
        return None
    return held_out_logits(pooled, labels, folds, recipe, [pooled[: len(folds)]], whitening)[0]


def _set_head(network: SliceNetwork, weight: NDArray[np.float64], bias: float) -> None:
    head = _linear_head(network)
    # a logit z for COVID against 0 is the same as z / 2 against - z / 2, and keeps the two outputs symmetric
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


def fit_whitening(
    network: SliceNetwork, other_ct: Sequence[CtSet], recipe: Recipe, machine: Machine
) -> Whitening | None:
    """What other slices' features vary along, for a head whose directions are fitted; None where nothing asks for it.

    Args:
        other_ct: of the network's input size.
    """
    if not other_ct or not recipe.whitening_ridge:
        return None
    features = [
        head_features(network, batches_of(each.images), machine, f"features of {each.name}").numpy()
        for each in other_ct
    ]
    return Whitening(features, recipe.whitening_ridge)


def pooled_views(
    network: SliceNetwork, split: Split, recipe: Recipe, machine: Machine
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the head sees of every view of a split: the plain slices, then `probe_views` - 1 augmented ones.

    Returns:
        float32 (V N, D) and int64 (V N,), on the CPU.
    """
    batches = plain_batches(split, recipe.input_size)
    for view in range(1, recipe.probe_views):
        batches += training_batches(split, recipe, -view, workers=machine.workers, shuffle=False)
    pooled = head_features(network, batches, machine, "probing features")
    return pooled, torch.cat([batch.labels for batch in batches])


def head_features(network: SliceNetwork, batches: list[Batch], machine: Machine, title: str) -> torch.Tensor:
    """What the head's linear layer sees of each slice: float32 (N, D), on the CPU."""
    return pooled_features(network, batches, _linear_head(network).pooled, machine, title)


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


def _linear_head(network: SliceNetwork) -> PooledHead | CovarianceHead:
    return cast(PooledHead | CovarianceHead, network.head)  # Recipe allows a probe for no other


def held_out_logits(
    pooled: torch.Tensor,
    labels: torch.Tensor,
    folds: torch.Tensor,
    recipe: Recipe,
    asked: Sequence[torch.Tensor],
    whitening: Whitening | None = None,
) -> torch.Tensor:
    """Answers to each slice by a probe that saw no view of its fold.

    Args:
        pooled, labels: of every view, as `pooled_views` gives them.
        folds: the fold that holds each slice out, int64 (N,); -1 for a slice that none does.
        recipe: the probe's.
        asked: what to answer: features of the slices, plain or altered, float32 (N, D) each.
        whitening: of slices that are in no fold.

    Returns:
        float32 (asked, N, 2); zero where no fold holds a slice out.
    """
    answers = torch.zeros(len(asked), len(folds), 2)
    for fold in range(int(folds.max()) + 1):
        say(f"probe without fold {fold}")
        held_out = folds == fold
        seen = ~held_out.repeat(recipe.probe_views)
        weight, bias = _solve_views(pooled[seen], labels[seen], recipe, whitening)
        for row, features in zip(answers, asked, strict=True):
            margin = torch.from_numpy(features[held_out].numpy() @ weight + bias).float()
            row[held_out] = torch.stack([-margin, margin], dim=1) / 2
    return answers


def _solve_views(
    pooled: torch.Tensor, labels: torch.Tensor, recipe: Recipe, whitening: Whitening | None
) -> tuple[NDArray[np.float64], float]:
    return solve(pooled.numpy(), labels.numpy(), recipe.probe_strength / recipe.probe_views, whitening)


def solve(
    features: NDArray[np.float32], labels: NDArray[np.int64], strength: float, whitening: Whitening | None = None
) -> tuple[NDArray[np.float64], float]:
    """L2-regularised logistic regression on standardised features, expressed for the raw ones.

    The weights lie in the span of the slices (representer theorem; Hastie & Tibshirani 2004, doi
    10.1093/biostatistics/kxh010), so that it is solved in as many dimensions as there are slices.

    Args:
        features: (N, D).
        labels: (N,), 0 or 1.
        strength: inverse penalty (scikit-learn's C). Whitened features are scaled to the same mean variance first, so
            that it means the same.
        whitening: what to make less of.

    Returns:
        Weight (D,) and bias of the logit of class 1.
    """
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features).astype(np.float32)
    damped = whitening.damp(scaled) if whitening else scaled
    variances, axes = eigh((scaled @ damped.T).astype(np.float64))
    kept = variances > _SPAN * variances[-1]
    roots = np.sqrt(variances[kept])
    along = axes[:, kept] * roots
    if whitening:
        scale = np.sqrt(scaled.var(0).sum() / along.var(0).sum())
        along, roots = along * scale, roots / scale
    model = LogisticRegression(C=strength, max_iter=5000, tol=1e-6).fit(along, labels)
    weight = damped.T @ (axes[:, kept] @ (model.coef_[0] / roots)) / scaler.scale_
    return weight, float(model.intercept_[0] - weight @ scaler.mean_)
