"""Plots of a run of the recipe `lesion`. Those of `draw_plots` show no image; the samples show images of the data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from training.evaluation.calibration import reliability
from training.evaluation.plots import draw_confusion, draw_reliability, draw_roc
from training.evaluation.scores import score
from training.learning.lesion_samples import LesionSamples, TrainingSet
from training.lesion_recipe import LesionRecipe
from training.release.lesion_record import LesionRunRecord
from training.release.predictions_csv import PredictedSet
from training.run.loss_table import read_losses
from training.run.seeding import derive_seed

_OFFICIAL: Final = ("test", "test_corrected")
"""Drawn sets of official test; the others have nearly the same slices."""

_SAMPLES: Final = 16


def draw_plots(
    record: LesionRunRecord, left_out: PredictedSet, test: PredictedSet, losses: Mapping[str, Path]
) -> dict[str, Figure]:
    """Draw every plot of a run, by name; of the left-out slices, those of sources with scores."""
    official = {name: scores for name, scores in record.splits.items() if name in _OFFICIAL}
    curves, bins = {}, {}
    for source in record.judgement.sources:
        places = [i for i, s in enumerate(left_out.slices) if s.source == source and s.label is not None]
        labels = np.array([left_out.slices[i].label for i in places])
        probability = left_out.predictions.probability[places]
        groups = [left_out.slices[i].group for i in places]
        curves[f"left-out {source}"] = score(probability, labels, record.judgement.threshold, 0, groups)
        bins[f"left-out {source}"] = reliability(probability, labels)
    bins["test"] = reliability(test.predictions.probability, [slice_.label or 0 for slice_ in test.slices])
    return {
        "roc": draw_roc(curves | {"official test": record.splits["test"]}),
        "confusion": draw_confusion(official),
        "reliability": draw_reliability(bins),
        "losses": draw_losses(losses),
    }


def draw_losses(paths: Mapping[str, Path]) -> Figure:
    """Draw every loss by step, one panel a network whose table is there."""
    tables = {title: rows for title, path in paths.items() if (rows := read_losses(path))}
    figure = Figure(figsize=(3.6 * len(tables), 3.6), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        steps = [int(float(row["step"])) for row in rows]
        for name in [name for name in rows[0] if name not in ("step", "seconds")]:
            axes.plot(steps, [float(row[name]) for row in rows], "o-", markersize=3, label=name)
        axes.set(title=title, xlabel="step", ylabel="loss", yscale="log")
        axes.legend(fontsize=7)
    return figure


def draw_samples(recipe: LesionRecipe, seen: TrainingSet) -> Figure:
    """Draw augmented training slices with their masks: lesions red, lungs blue.

    The plot shows images of the data, so it must not be published.
    """
    rng = np.random.default_rng(derive_seed(recipe.seed, "samples"))
    batch = LesionSamples(seen, recipe.box_size, rng).batch(_SAMPLES)
    figure = Figure(figsize=(12, 10), layout="constrained")
    figure.suptitle("Training samples: lesions red, lungs blue. Not for publishing: the slices belong to their authors")
    height, width = recipe.box_size
    for place, axes in enumerate(figure.subplots(4, _SAMPLES // 4).flat):
        axes.imshow(batch.pictures[place, 0].numpy(), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        for mask, weight, colour in ((batch.lung, 1.0, "tab:blue"), (batch.lesion, batch.lesion_weight[place], "red")):
            cells = mask[place, 0].numpy()
            if weight and 0 < (cells > 0.5).sum() < cells.size:
                axes.contour(cells, [0.5], colors=[colour], linewidths=0.8, extent=(0, width, 0, height))
        known = f"label {int(batch.label[place])}" if batch.label_weight[place] else "no label"
        axes.set_title(f"{known}, lesion mask {'known' if batch.lesion_weight[place] else 'unknown'}", fontsize=7)
        axes.axis("off")
    return figure
