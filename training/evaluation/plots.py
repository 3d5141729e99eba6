"""Plots of a run; each function draws one and returns it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest
from sklearn.metrics import ConfusionMatrixDisplay

from training.data.covid_ct import LABELS
from training.evaluation.calibration import ReliabilityBin
from training.evaluation.scores import Scores, written
from training.run.atomic_write import write_atomically


def draw_roc(splits: Mapping[str, Scores]) -> Figure:
    """Draw the receiver operating characteristic of each set of slices, with its operating point."""
    figure = Figure(figsize=(5.4, 5.4), layout="constrained")
    axes = figure.subplots()
    for name, split in splits.items():
        sensitivity, specificity = (split.figures[key].value for key in ("sensitivity", "specificity"))
        label = (
            f"{name} (n = {split.count}): AUC {written(split.figures['auc'])}; at {split.threshold:.2f} sensitivity "
            f"{sensitivity:.2f}, specificity {specificity:.2f}"
        )
        (line,) = axes.plot(split.roc.false_positive_rate, split.roc.true_positive_rate, label=label)
        axes.plot(1 - specificity, sensitivity, "o", color=line.get_color())
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity (COVID)", aspect="equal")
    figure.legend(loc="outside upper center", fontsize=7)
    return figure


def draw_reliability(splits: Mapping[str, Sequence[ReliabilityBin]]) -> Figure:
    """Draw the share of COVID over the predicted probability, by tenths, with counts and 95 % Wilson intervals."""
    figure = Figure(figsize=(4.6, 5.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="grey")
    for name, points in splits.items():
        x, y, counts = (np.array(column) for column in zip(*points, strict=True))
        error = (counts * np.abs(x - y)).sum() / counts.sum()
        intervals = [binomtest(round(share * n), n).proportion_ci(method="wilson") for _, share, n in points]
        low, high = np.array([(interval.low, interval.high) for interval in intervals]).T
        margins = np.maximum(0, [y - low, high - y])
        axes.errorbar(x, y, yerr=margins, fmt="o-", capsize=2, label=f"{name}: error {error:.3f}")
        for place in points:
            axes.annotate(str(place.slices), place[:2], xytext=(4, -9), textcoords="offset points", fontsize=7)
    axes.set(xlabel="probability of COVID", ylabel="share of COVID", aspect="equal")
    figure.legend(loc="outside upper center", fontsize=7)
    return figure


def draw_confusion(splits: Mapping[str, Scores]) -> Figure:
    """Draw confusion matrices in numbers of slices and shares of the true class, one panel per split."""
    figure = Figure(figsize=(3.6 * len(splits), 3.4), layout="constrained")
    for axes, (name, split) in zip(np.atleast_1d(figure.subplots(1, len(splits))), splits.items(), strict=True):
        matrix = split.confusion_matrix
        cells = np.array(
            [[matrix.true_negatives, matrix.false_positives], [matrix.false_negatives, matrix.true_positives]]
        )
        shown = ConfusionMatrixDisplay(cells, display_labels=LABELS)
        shown.plot(ax=axes, cmap="Blues", colorbar=False, im_kw={"vmin": 0})
        for (row, column), number in np.ndenumerate(cells):
            shown.text_[row, column].set_text(f"{number}\n{number / max(1, cells[row].sum()):.1%}")
        axes.set(xlabel="predicted", ylabel="true", title=name)
    return figure


def save_plots(plots: Mapping[str, Figure], folder: Path) -> None:
    """Write each plot as NAME.png into the folder."""
    folder.mkdir(exist_ok=True)
    for name, plot in plots.items():
        save_plot(plot, folder / f"{name}.png")


def save_plot(plot: Figure, path: Path) -> None:
    """Write a plot as PNG."""
    # no Software tag: it would change the file with every release of matplotlib
    write_atomically(path, lambda file: plot.savefig(file, format="png", dpi=110, metadata={"Software": None}))
