"""report.md: the report's figures next to those of our runs, network by network."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Final

import numpy as np

from training.data.covid_ct import CovidCt
from training.evaluation.model_files import difference_of_auc
from training.evaluation.plots import draw_roc, draw_sample, save_plot
from training.evaluation.scores import ScoreName
from training.release.run_record import NOT_LEARNED
from training.report.predictions_csv import read_test_predictions
from training.report.record import ReportRunRecord
from training.report_recipe import ReportRecipe
from training.run.atomic_write import write_text

_SCORES: Final[tuple[ScoreName, ...]] = ("auc", "accuracy", "sensitivity", "specificity")

_PUBLISHED: Final = {"vgg19_bn": ("0.842", "0.76"), "vgg16_bn": ("0.569", "0.54")}
"""AUC and accuracy on test in the report."""


def write_page(
    folder: Path, records: Sequence[ReportRunRecord], data: CovidCt, patients: Sequence[str] | None = None
) -> str:
    """Write report.md and two plots into the folder of the runs; return the text.

    Args:
        folder: that holds the folder NETWORK-SEED of each run.
        records: of at least one run.
        data: that all of them were trained and tested on.
        patients: of the test slices, if they are known.
    """
    networks: dict[str, list[ReportRunRecord]] = {}
    for record in records:
        networks.setdefault(_recipe(record).architecture, []).append(record)
    first = {name: runs[0].splits["test"] for name, runs in networks.items()}
    save_plot(draw_roc(first), folder / "roc.png")
    save_plot(draw_sample(data.train), folder / "sample.png")
    lines = [
        *_table(networks, len(data.test.slices)),
        *_differences(folder, networks, data, patients),
        *_remarks(records),
        *_figures(networks),
    ]
    text = "\n".join(lines) + "\n"
    write_text(folder / "report.md", text)
    return text


def _table(networks: Mapping[str, Sequence[ReportRunRecord]], count: int) -> list[str]:
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
        spread = [mean_and_deviation([run.splits["test"].figures[key].value for run in runs]) for key in _SCORES]
        spread.append(mean_and_deviation([run.audit.variants["reencoded"].figures["auc"].value for run in runs]))
        seeds = ", ".join(str(_recipe(run).seed) for run in runs)
        epochs = ", ".join(f"{run.kept_epoch} of {run.history[-1].epoch}" for run in runs)
        lines.append(f"| {name} | seed {seeds} | {' | '.join(spread)} | {epochs} | {runs[0].model.weights} |")
    return lines


def _differences(
    folder: Path, networks: Mapping[str, Sequence[ReportRunRecord]], data: CovidCt, patients: Sequence[str] | None
) -> list[str]:
    """Compare each two networks on the same slices."""
    labels = data.test.labels.numpy()
    scores = {
        name: np.array([read_test_predictions(folder / run_name(run) / "model" / "predictions.csv") for run in runs])
        for name, runs in networks.items()
    }
    lines, over = [], "slices" if patients is None else f"{len(set(patients))} patients"
    for first, second in combinations(scores, 2):
        difference = difference_of_auc(scores[first], scores[second], labels, patients)
        interval = f"95 % {difference.low:+.3f} to {difference.high:+.3f}, paired bootstrap over {over}"
        lines += ["", f"AUC of {first} minus that of {second}: {difference.value:+.3f} ({interval})."]
    return lines


def _remarks(records: Sequence[ReportRunRecord]) -> list[str]:
    lines = []
    usual = ReportRecipe().model_dump()
    fields = records[0].config
    changed = [
        f"{name} {fields[name]}" for name in usual.keys() - {"architecture", "seed"} if fields[name] != usual[name]
    ]
    if changed:
        lines += ["", f"Fields that differ from the report's: {', '.join(sorted(changed))}."]
    for run in records:
        if not run.learned:
            lines += ["", f"**{run_name(run)}**: {not_learned(run)}"]
    return lines


def not_learned(run: ReportRunRecord) -> str:
    """Say why a network learned nothing, and whether it has a model file."""
    reason = run.reason if run.kept_epoch else f"its best epoch is 0, before training, and {run.reason}"
    file = "" if run.files else " No model file was written; --export-anyway writes it."
    return NOT_LEARNED.format(reason=reason) + file


def _figures(networks: Mapping[str, Sequence[ReportRunRecord]]) -> list[str]:
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
            f"![{figure} of {name}]({run_name(runs[0])}/model/figures/{figure}.png)" for name, runs in networks.items()
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "![ROC on test](roc.png)"]


def _recipe(record: ReportRunRecord) -> ReportRecipe:
    return ReportRecipe.model_validate(record.config)


def run_name(record: ReportRunRecord) -> str:
    """Name of the run's folder."""
    recipe = _recipe(record)
    return f"{recipe.architecture}-{recipe.seed}"


def mean_and_deviation(values: Sequence[float]) -> str:
    """Write mean and standard deviation of at least one value, as in `0.800 ± 0.100`; one value has no deviation."""
    deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{deviation}"
