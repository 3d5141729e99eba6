"""Plots of the report: slices of both classes, and curves of the training."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from training.data.covid_ct import LABELS, Split
from training.report.fine_tuning import EpochRecord

_COLUMNS: Final = 4

_RUNAWAY_LOSS: Final = 10.0
"""Nats; a network that guesses between two classes has 0.69."""


def draw_sample(split: Split) -> Figure:
    """Draw slices of both classes, evenly spaced in their lists (figures 3 and 4 of the report).

    The plot shows images of the data set, so it must not be published.
    """
    figure = Figure(figsize=(2.4 * _COLUMNS, 10), layout="constrained")
    for part, label in zip(np.asarray(figure.subfigures(2, 1)), (1, 0), strict=True):
        part.suptitle(f"{LABELS[label]} (label {label}); not for publishing, the papers' authors own these slices")
        slices = [labelled for labelled in split.slices if labelled.label == label]
        chosen = [slices[i] for i in np.linspace(0, len(slices) - 1, 2 * _COLUMNS).astype(int)]
        for axes, labelled in zip(part.subplots(2, _COLUMNS).flat, chosen, strict=True):
            axes.imshow(labelled.pixels[0], cmap="gray", vmin=0, vmax=255)
            axes.set_title("\n".join(wrap(Path(labelled.path).name, 26)), fontsize=6)
            axes.axis("off")
    return figure


def draw_curves(history: Sequence[EpochRecord], kept_epoch: int) -> Figure:
    """Draw loss and accuracy by epoch; epoch 0 is the network before fine-tuning.

    If the loss exploded in some epoch, its axis is logarithmic, because the others would be flat.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    trained = history[1:]
    for axes, name, train, val in (
        (loss, "cross-entropy (nats)", [r.train_loss for r in trained], [r.val_loss for r in history]),
        (accuracy, "accuracy", [r.train_accuracy for r in trained], [r.val_accuracy for r in history]),
    ):
        axes.plot([r.epoch for r in trained], train, "o-", label="train")
        axes.plot([r.epoch for r in history], val, "s-", label="val")
        axes.axvline(kept_epoch, color="grey", linestyle=":", label="kept")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    if max(r.val_loss for r in history) > _RUNAWAY_LOSS:
        loss.set_yscale("log")
    return figure
