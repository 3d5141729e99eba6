"""Logistic regression of the appearance probe on a trained network's maps, with fixed shares of sources and classes."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.data.ct_slices import CtSlice
from training.learning.augmentation import degrade, draw_marks, jitter_tone
from training.learning.lesion_samples import TrainingSet, share_of
from training.learning.lung_crops import crop_lungs
from training.network.lesion_network import AppearanceProbe, LesionNetwork, pyramid_and_probed
from training.run.machine import Machine
from training.run.processes import current
from training.run.progress import progress

_PENALTY: Final = 0.3
"""C of the logistic regression, for features whose mean squared length is 1; 0.1 and 0.3 differ by 0.007 (left out)."""

_VIEWS: Final = 2
"""The unchanged slice, and an augmented one."""

_MOST: Final = 1000
"""Largest number of slices of a source."""


def fit_appearance(
    network: LesionNetwork,
    seen: TrainingSet,
    size: tuple[int, int],
    machine: Machine,
    rng: np.random.Generator,
) -> AppearanceProbe:
    """Fit the probe to the labelled slices that the network was trained on."""
    slices = seen.slices
    chosen = _choose([i for i, s in enumerate(slices) if s.kind == "labelled" and s.label is not None], slices, rng)
    probe = AppearanceProbe(network.probed_channels)
    views = [_pool(network, probe, seen, chosen, size, machine, rng if view else None) for view in range(_VIEWS)]
    features = np.concatenate(views)
    labels = np.tile([slices[i].label or 0 for i in chosen], _VIEWS)
    weights = np.tile(_weights([slices[i] for i in chosen], seen.shares), _VIEWS)
    scaler = StandardScaler().fit(features)
    # divided by the root of their number, so that the penalty does not depend on it
    root = np.sqrt(features.shape[1])
    fitted = LogisticRegression(C=_PENALTY, max_iter=500).fit(
        scaler.transform(features) / root, labels, sample_weight=weights * len(labels) / weights.sum()
    )
    probe.load_state_dict(
        {
            "mean": torch.from_numpy(scaler.mean_).float(),
            "scale": torch.from_numpy(scaler.scale_).float().clamp_min(1e-4),
            "linear.weight": torch.from_numpy(fitted.coef_ / root).float(),
            "linear.bias": torch.from_numpy(fitted.intercept_).float(),
        }
    )
    return probe.eval()


def _choose(labelled: Sequence[int], slices: Sequence[CtSlice], rng: np.random.Generator) -> list[int]:
    chosen: list[int] = []
    for source in sorted({slices[i].source for i in labelled}):
        members = [i for i in labelled if slices[i].source == source]
        chosen += sorted(members[int(k)] for k in rng.permutation(len(members))[:_MOST])
    return chosen


def _pool(
    network: LesionNetwork,
    probe: AppearanceProbe,
    seen: TrainingSet,
    chosen: Sequence[int],
    size: tuple[int, int],
    machine: Machine,
    rng: np.random.Generator | None,
) -> NDArray[np.float32]:
    """Pool the maps of unchanged or augmented slices: (N, features). Each process computes its part."""
    seeds = np.zeros(len(chosen), np.int64) if rng is None else rng.integers(2**62, size=len(chosen))
    places = current().places(len(chosen))
    rows = [np.empty((0, len(probe.mean)), np.float32)]
    network.to(machine.device)
    with torch.inference_mode(), machine.autocast():
        for start in progress(range(0, len(places), 8), "pooling lesion features", "batch"):
            pictures = []
            for place in places[start : start + 8]:
                i, view = chosen[place], None if rng is None else np.random.default_rng(seeds[place])
                grey = crop_lungs(seen.slices[i], seen.lungs.lung[i], seen.lungs.box[i], size, view).grey
                pictures.append(
                    grey if view is None else degrade(draw_marks(jitter_tone(grey, view), view, 0.35), view)
                )
            batch = torch.from_numpy(np.stack(pictures).astype(np.float32))[:, None].to(machine.device)
            maps, probed = pyramid_and_probed(network.features(network.normalise(255 * batch)))
            cells = network.decoder(maps)
            lung = torch.sigmoid(cells[:, :1])
            rows.append(probe.pool(probed, lung, torch.sigmoid(cells[:, 1:]) * lung).float().cpu().numpy())
    network.cpu()
    return current().gather(np.concatenate(rows))


def _weights(slices: Sequence[CtSlice], shares: Mapping[str | None, float]) -> NDArray[np.float64]:
    """Weight slices so that each group of sources has its share, half of it for each class.

    Within a group and a class sources weigh as much as the root of their number, as in `LesionSamples`.
    """
    groups = [(share_of(slice_, shares), slice_.label) for slice_ in slices]
    sources = Counter((slice_.source, slice_.label) for slice_ in slices)
    roots = np.array([1 / np.sqrt(sources[slice_.source, slice_.label]) for slice_ in slices])
    totals: dict[tuple[str | None, int | None], float] = defaultdict(float)
    for group, root in zip(groups, roots, strict=True):
        totals[group] += float(root)
    return np.array([shares[group[0]] * root / totals[group] for group, root in zip(groups, roots, strict=True)])
