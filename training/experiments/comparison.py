"""Comparison of runs: each network with each recipe and each seed, on the same split, in one table."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.model.card import Interval
from training.data.covid_ct import LABELS, CovidCt
from training.evaluation.plots import draw_confusion, draw_curves, draw_roc
from training.evaluation.scores import RESAMPLES, MeanAndDeviation, ScoreName, auc_by_column, mean_and_deviation
from training.experiments.trial import Trial, run_trial
from training.learning.fit import FitSettings
from training.recipe import Recipe
from training.run.atomic_write import write_atomically
from training.run.progress import say
from training.run.record import Record

_SCORES: Final[tuple[ScoreName, ...]] = ("auc", "accuracy", "sensitivity", "specificity")


class Row(Record):
    """One network with one recipe.

    Attributes:
        weights: source of the pretrained weights.
        threshold_rule: rule that chose the threshold of each seed.
        test, test_reencoded: scores by name, over the seeds.
        chosen_on: scores on the slices that the thresholds were chosen on.
    """

    architecture: str
    recipe: str
    seeds: tuple[int, ...]
    weights: str
    threshold_rule: str
    test: dict[str, MeanAndDeviation]
    test_reencoded: dict[str, MeanAndDeviation]
    chosen_on: dict[str, MeanAndDeviation]


class Pair(Record):
    """Two rows on the same test slices.

    Attributes:
        difference: test AUC of the first minus that of the second, each the mean over its seeds, with the 95 %
            interval of a paired bootstrap over slices.
    """

    first: str
    second: str
    difference: Interval


class Comparison(Record):
    """The content of compare.json."""

    positive_label: str
    test_count: int
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]


def compare(fittings: Sequence[FitSettings], data: CovidCt, folder: Path) -> Comparison:
    """Finish all runs, then write compare.json, compare.md and plots into `folder`.

    A finished run is read and an interrupted one resumes, so the same command can be repeated.

    Args:
        fittings: one for each network, recipe and seed, each with its own run folder.
        data: the same for all.
        folder: for the results.

    Raises:
        TrainingError: a run's folder belongs to another run.
    """
    groups: dict[tuple[str, str], list[Trial]] = {}
    for number, settings in enumerate(fittings, 1):
        recipe, architecture = settings.recipe, settings.recipe.network.architecture
        say(f"run {number} of {len(fittings)}: {architecture}, {recipe.name}, seed {recipe.seed}")
        groups.setdefault((architecture, recipe.name), []).append(run_trial(settings, data))
    comparison = _summarise(groups, data)
    folder.mkdir(parents=True, exist_ok=True)
    comparison.write(folder / "compare.json")
    write_atomically(folder / "compare.md", lambda path: path.write_text(as_table(comparison)))
    _draw(groups, folder)
    return comparison


def as_table(comparison: Comparison) -> str:
    """Format the comparison as Markdown."""
    lines = [
        f"Test split, n = {comparison.test_count}, {comparison.positive_label} positive. Mean and standard deviation "
        "over seeds.",
        "",
        "| network | recipe | seeds | AUC | accuracy | sensitivity | specificity | AUC, re-encoded | weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in comparison.rows:
        cells = [str(row.test[name]) for name in _SCORES] + [str(row.test_reencoded["auc"])]
        run = [row.architecture, row.recipe, ", ".join(map(str, row.seeds))]
        lines.append(f"| {' | '.join([*run, *cells, row.weights])} |")
    lines += ["", "| pair | difference of AUC (95 % interval, paired bootstrap) |", "| --- | --- |"]
    for pair in comparison.pairs:
        value = pair.difference
        lines.append(f"| {pair.first} - {pair.second} | {value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f}) |")
    rules = {f"{row.architecture} {row.recipe}: {row.threshold_rule}" for row in comparison.rows}
    return "\n".join([*lines, "", "Thresholds: " + "; ".join(sorted(rules)) + ".", ""])


def difference_of_auc(first: NDArray[np.float64], second: NDArray[np.float64], labels: NDArray[np.int64]) -> Interval:
    """Compute the AUC of `first` minus that of `second`, with a 95 % interval.

    The bootstrap resamples slices within classes and scores both on the same resamples (Efron & Tibshirani 1993,
    chapter 16).

    Args:
        first, second: (seeds, N) scores; the mean AUC over seeds is compared.
        labels: (N,), 0 or 1.
    """
    generator = np.random.default_rng(0)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    everyone = np.arange(len(labels))
    samples = [np.concatenate([generator.choice(rows, len(rows)) for rows in classes]) for _ in range(RESAMPLES)]
    values = [_mean_auc(first[:, rows], labels[rows]) - _mean_auc(second[:, rows], labels[rows]) for rows in samples]
    low, high = np.percentile(values, [2.5, 97.5])
    value = _mean_auc(first[:, everyone], labels) - _mean_auc(second[:, everyone], labels)
    return Interval(value=round(value, 4), low=round(float(low), 4), high=round(float(high), 4))


def _summarise(groups: Mapping[tuple[str, str], Sequence[Trial]], data: CovidCt) -> Comparison:
    rows = tuple(_row(trials) for trials in groups.values())
    labels = data.test.labels.numpy()
    scores = {" ".join(name): np.array([trial.test_scores for trial in trials]) for name, trials in groups.items()}
    pairs = tuple(
        Pair(first=first, second=second, difference=difference_of_auc(scores[first], scores[second], labels))
        for first, second in combinations(scores, 2)
    )
    return Comparison(positive_label=LABELS[1], test_count=len(labels), rows=rows, pairs=pairs)


def _draw(groups: Mapping[tuple[str, str], Sequence[Trial]], folder: Path) -> None:
    """Draw figures 5 to 10 of the report for the first seed of each row: curves, confusion matrices and ROC."""
    figures = {"roc": draw_roc({" ".join(name): trials[0].splits["test"] for name, trials in groups.items()})}
    for name, (first, *_) in groups.items():
        matrices = {split: first.splits[split].confusion_matrix for split in (first.reference, "test")}
        figures[f"confusion-{'-'.join(name)}"] = draw_confusion(matrices)
        if len(first.history) > 1:
            figures[f"curves-{'-'.join(name)}"] = draw_curves(first.history, first.kept_epoch)
    for file, figure in figures.items():
        figure.savefig(folder / f"{file}.png", dpi=110, metadata={"Software": None})


def _row(trials: Sequence[Trial]) -> Row:
    first = trials[0]
    recipe = Recipe.model_validate(first.config)
    return Row(
        architecture=recipe.network.architecture,
        recipe=recipe.name,
        seeds=tuple(Recipe.model_validate(trial.config).seed for trial in trials),
        weights=first.weights,
        threshold_rule=first.threshold.rule,
        test=_summaries([trial.splits["test"].figures for trial in trials]),
        test_reencoded=_summaries([trial.splits["reencoded"].figures for trial in trials]),
        chosen_on=_summaries([trial.splits[trial.reference].figures for trial in trials]),
    )


def _mean_auc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    columns = np.broadcast_to(labels[:, np.newaxis], scores.T.shape)
    return float(auc_by_column(scores.T, columns).mean())


def _summaries(runs: Sequence[Mapping[ScoreName, Interval]]) -> dict[str, MeanAndDeviation]:
    return {name: mean_and_deviation([run[name].value for run in runs]) for name in _SCORES}
