"""report.md: the report's figures next to those of our runs, network by network."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Final

import numpy as np

from training.data.covid_ct import CovidCt
from training.evaluation.plots import draw_roc, save_plot
from training.evaluation.scores import difference_of_auc
from training.models.run_record import NOT_LEARNED
from training.models.template import fill_template
from training.report.plots import draw_sample
from training.report.run import ReportRunRecord, read_test_predictions
from training.report_recipe import ReportRecipe
from training.run.atomic_write import write_text

_PUBLISHED: Final = {"vgg19_bn": ("0.842", "0.76"), "vgg16_bn": ("0.569", "0.54")}
"""AUC and accuracy on test in the report."""


def write_page(folder: Path, records: Sequence[ReportRunRecord], data: CovidCt) -> str:
    """Write report.md and two plots into the folder that holds the runs' folders; return the text."""
    networks: dict[str, list[ReportRunRecord]] = {}
    for record in records:
        networks.setdefault(_recipe(record).architecture, []).append(record)
    save_plot(draw_roc({name: runs[0].splits["test"] for name, runs in networks.items()}), folder / "roc.png")
    save_plot(draw_sample(data.train), folder / "sample.png")
    labels, patients = data.test.labels.numpy(), data.test.patients
    scores = {
        name: np.array([read_test_predictions(folder / run_name(run)) for run in runs])
        for name, runs in networks.items()
    }
    usual, fields = ReportRecipe().model_dump(exclude={"architecture", "seed"}), records[0].config
    text = fill_template(
        Path(__file__).with_name("page.md"),
        {"spread": mean_and_deviation, "run_name": run_name, "recipe_of": _recipe},
        count=len(data.test.slices),
        networks=networks,
        published=_PUBLISHED,
        differences=[
            (first, second, difference_of_auc(scores[first], scores[second], labels, patients))
            for first, second in combinations(scores, 2)
        ],
        over="slices" if patients is None else f"{len(set(patients))} patients",
        changed=sorted(f"{name} {fields[name]}" for name, value in usual.items() if fields[name] != value),
        not_learned={run_name(run): not_learned(run) for run in records if not run.learned},
    )
    write_text(folder / "report.md", text)
    return text


def not_learned(run: ReportRunRecord) -> str:
    """Say why a network learned nothing, and whether it has a model file."""
    reason = run.reason if run.kept_epoch else f"its best epoch is 0, before training, and {run.reason}"
    file = "" if run.files else " No model file was written; --export-anyway writes it."
    return NOT_LEARNED.format(reason=reason) + file


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
