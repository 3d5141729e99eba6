"""report.md: the report's figures next to those of our runs, network by network."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np

from training.data.covid_ct import CovidCt
from training.evaluation.model_files import difference_of_auc
from training.evaluation.plots import draw_roc, draw_sample, save_plot
from training.evaluation.scores import ScoreName, mean_and_deviation
from training.release.predictions_csv import read_test_predictions
from training.release.report import Report
from training.report_recipe import ReportRecipe
from training.run.atomic_write import write_text

_SCORES: Final[tuple[ScoreName, ...]] = ("auc", "accuracy", "sensitivity", "specificity")

_PUBLISHED: Final = {"vgg19_bn": ("0.842", "0.76"), "vgg16_bn": ("0.569", "0.54")}
"""AUC and accuracy on test in the report."""


def write_page(folder: Path, reports: Sequence[Report], data: CovidCt, patients: Sequence[str] | None = None) -> str:
    """Write report.md and two plots into the folder of the runs; return the text.

    Args:
        folder: that holds the folder NETWORK-SEED of each run.
        reports: of at least one run.
        data: that all of them were trained and tested on.
        patients: of the test slices, if they are known.
    """
    networks: dict[str, list[Report]] = {}
    for each in reports:
        networks.setdefault(_recipe(each).architecture, []).append(each)
    first = {name: runs[0].splits["test"] for name, runs in networks.items()}
    save_plot(draw_roc(first), folder / "roc.png")
    save_plot(draw_sample(data.train), folder / "sample.png")
    lines = [
        *_table(networks, len(data.test.slices)),
        *_differences(folder, networks, data, patients),
        *_remarks(reports),
        *_figures(networks),
    ]
    text = "\n".join(lines) + "\n"
    write_text(folder / "report.md", text)
    return text


def _table(networks: Mapping[str, Sequence[Report]], count: int) -> list[str]:
    lines = [
        "# The report's experiment",
        "",
        f"Test split, n = {count}, COVID positive, threshold 0.5; mean and standard deviation over seeds.",
        "",
        "| network | run | AUC | accuracy | sensitivity | specificity | AUC, re-encoded | epochs | weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in networks.items():
        lines.append(f"| {name} | the report | {' | '.join(_PUBLISHED[name])} | | | | | ImageNet |")
        spread = [str(mean_and_deviation([run.splits["test"].figures[key].value for run in runs])) for key in _SCORES]
        spread.append(str(mean_and_deviation([run.audit.variants["reencoded"].figures["auc"].value for run in runs])))
        seeds = ", ".join(str(_recipe(run).seed) for run in runs)
        epochs = ", ".join(f"{run.kept_epoch} of {run.history[-1].epoch}" for run in runs)
        lines.append(f"| {name} | seed {seeds} | {' | '.join(spread)} | {epochs} | {runs[0].model.weights} |")
    return lines


def _differences(
    folder: Path, networks: Mapping[str, Sequence[Report]], data: CovidCt, patients: Sequence[str] | None
) -> list[str]:
    """Compare each two networks on the same slices."""
    labels = data.test.labels.numpy()
    scores = {
        name: np.array([read_test_predictions(folder / _name(run) / "model" / "predictions.csv") for run in runs])
        for name, runs in networks.items()
    }
    lines, over = [], "slices" if patients is None else f"{len(set(patients))} patients"
    for first, second in combinations(scores, 2):
        each = difference_of_auc(scores[first], scores[second], labels, patients)
        interval = f"{each.value:+.3f} (95 % {each.low:+.3f} to {each.high:+.3f}, paired bootstrap over {over})"
        lines += ["", f"AUC of {first} less that of {second}: {interval}."]
    return lines


def _remarks(reports: Sequence[Report]) -> list[str]:
    lines = []
    usual = ReportRecipe().model_dump()
    fields = reports[0].config
    changed = [
        f"{name} {fields[name]}" for name in usual.keys() - {"architecture", "seed"} if fields[name] != usual[name]
    ]
    if changed:
        lines += ["", f"Fields that differ from the report's: {', '.join(sorted(changed))}."]
    for run in reports:
        if not run.learned:
            auc = run.splits["val"].figures["auc"]
            interval = f"{auc.value:.3f} (95 % {auc.low:.3f} to {auc.high:.3f})"
            kept = "" if run.kept_epoch else " The kept epoch is 0, the network before training."
            lines += [
                "",
                f"**{_name(run)} learned nothing**: AUC on validation {interval}.{kept} It has no model file.",
            ]
    return lines


def _figures(networks: Mapping[str, Sequence[Report]]) -> list[str]:
    """Link figures 3 to 10 of the report, of the first seed of each network."""
    lines = [
        "",
        "## Figures 3 to 10 of the report, first seed",
        "",
        "Slices of both classes (figures 3 and 4; **do not publish**: the papers' authors own them):",
        "",
        "![slices of both classes](sample.png)",
        "",
        "Curves, confusion matrices and ROC (figures 5 to 10):",
        "",
        f"| {' | '.join(networks)} |",
        f"|{' --- |' * len(networks)}",
    ]
    for figure in ("curves", "confusion", "roc"):
        cells = [
            f"![{figure} of {name}]({_name(runs[0])}/model/figures/{figure}.png)" for name, runs in networks.items()
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "![ROC on test](roc.png)"]


def _recipe(report: Report) -> ReportRecipe:
    return ReportRecipe.model_validate(report.config)


def _name(report: Report) -> str:
    """Name of the run's folder."""
    recipe = _recipe(report)
    return f"{recipe.architecture}-{recipe.seed}"
