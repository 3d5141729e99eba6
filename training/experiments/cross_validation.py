"""Cross-validation of a recipe over train and validation: its scores on patients that it was not trained on.

Test is not used. Official validation differs from test in this data, so a choice on validation alone is unreliable.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch

from training.data.covid_ct import Split
from training.data.folds import FoldPlan
from training.evaluation.alterations import altered, reencode
from training.evaluation.scores import MeanAndDeviation, auc, mean_and_deviation
from training.experiments.out_of_fold import OutOfFold, out_of_fold_logits
from training.learning.fit import FitSettings
from training.recipe import RECIPES, Recipe
from training.run.record import Provenance, Record


class EpochScores(Record):
    """Scores of the out-of-fold answers after one epoch; 0 is before fine-tuning. Mean and deviation over repeats.

    Attributes:
        auc: of the margins of all slices together, although they come from one network per fold.
        auc_by_fold: mean over folds, which does not compare margins of different networks.
        accuracy: share of correct calls at a probability of 0.5.
        accuracy_by_fold: mean over folds.
    """

    epoch: int
    auc: MeanAndDeviation
    auc_by_fold: MeanAndDeviation
    accuracy: MeanAndDeviation
    accuracy_by_fold: MeanAndDeviation


class Reencoded(Record):
    """Answers of the probe to the held-out slices after re-encoding (training/evaluation/alterations.py).

    Attributes:
        same_call: share of slices with the same call as before, at 0.5.
    """

    figures: EpochScores
    same_call: MeanAndDeviation


class CrossValidation(Provenance):
    """The content of crossvalidation.json.

    Attributes:
        weights: source of the pretrained weights.
        group_by: kind of the groups.
        groups: number of groups; those of each class count separately.
        seconds: wall time of all training.
    """

    group_by: str
    groups: int
    folds: int
    repeats: int
    weights: str
    epochs: tuple[EpochScores, ...]
    reencoded: Reencoded | None
    seconds: float


def cross_validate(settings: FitSettings, split: Split, plan: FoldPlan) -> CrossValidation:
    """Cross-validate a recipe, and write crossvalidation.json and out-of-fold.csv into the run folder.

    Args:
        settings: recipe, and the folder for all results.
        split: slices of `CovidCt.train_and_val`.
        plan: number of folds and repeats, and the groups of the slices.

    Raises:
        TrainingError: no such folds are possible, or the folder belongs to another run.
    """
    reencoded = None if settings.recipe.fine_tuning else altered(split, reencode)
    answers = out_of_fold_logits(settings, split, plan, reencoded)
    record = CrossValidation(
        **dict(settings.provenance({split.name: split.fingerprint()})),
        group_by=plan.group_by,
        groups=len(set(plan.groups)),
        folds=plan.folds,
        repeats=plan.repeats,
        weights=answers.source,
        epochs=tuple(
            _scores(epoch, _margins(answers.logits[:, epoch]), answers.folds, split.labels)
            for epoch in range(answers.logits.shape[1])
        ),
        reencoded=_reencoded(answers, split.labels),
        seconds=round(answers.seconds, 1),
    )
    settings.run_folder.mkdir(parents=True, exist_ok=True)
    _write_predictions(settings.run_folder / "out-of-fold.csv", answers, split, plan)
    record.write(settings.run_folder / "crossvalidation.json")
    return record


def as_rows(record: CrossValidation) -> str:
    """Format the record as a Markdown table with one row per epoch, for docs/experiments.md."""
    lines = [
        "| commit | weights | recipe | folds x repeats | epoch | AUC | AUC, mean of folds | accuracy | AUC, re-encoded "
        "| same call | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    run = [
        record.git_commit[:7],
        record.weights,
        _changes(Recipe.model_validate(record.config)),
        f"{record.folds} x {record.repeats}, by {record.group_by}",
    ]
    for row in record.epochs:
        scores = [str(each) for each in (row.auc, row.auc_by_fold, row.accuracy)]
        reencoded = ["", ""]
        if record.reencoded:
            reencoded = [str(record.reencoded.figures.auc), str(record.reencoded.same_call)]
        lines.append(f"| {' | '.join([*run, str(row.epoch), *scores, *reencoded, f'{record.seconds:.0f}'])} |")
    return "\n".join(lines)


def _changes(recipe: Recipe) -> str:
    """Format the recipe's name and its overridden fields."""
    own, usual = recipe.flat(), RECIPES[recipe.name].flat()
    changed = [f"{name} {value}" for name, value in own.items() if value != usual.get(name)]
    return ", ".join([f"`{recipe.name}`", *changed])


def _reencoded(answers: OutOfFold, labels: torch.Tensor) -> Reencoded | None:
    if answers.variant is None:
        return None
    before, after = _margins(answers.logits[:, 0]), _margins(answers.variant)
    same = ((before >= 0) == (after >= 0)).double().mean(1)
    return Reencoded(figures=_scores(0, after, answers.folds, labels), same_call=mean_and_deviation(same.tolist()))


def _margins(logits: torch.Tensor) -> torch.Tensor:
    """Return the margins of COVID over NonCOVID: float32 (..., 2) -> (...); 0 is a probability of 0.5."""
    return logits[..., 1] - logits[..., 0]


def _scores(epoch: int, margins: torch.Tensor, folds: torch.Tensor, labels: torch.Tensor) -> EpochScores:
    """Score float (R, N) margins; `folds` like in OutOfFold, `labels` int64 (N,)."""
    repeats = list(zip(margins, folds, strict=True))
    return EpochScores(
        epoch=epoch,
        auc=mean_and_deviation([auc(margin, labels) for margin, _ in repeats]),
        auc_by_fold=mean_and_deviation([_mean_over_folds(auc, *repeat, labels) for repeat in repeats]),
        accuracy=mean_and_deviation([_accuracy(margin, labels) for margin, _ in repeats]),
        accuracy_by_fold=mean_and_deviation([_mean_over_folds(_accuracy, *repeat, labels) for repeat in repeats]),
    )


def _mean_over_folds(
    figure: Callable[[torch.Tensor, torch.Tensor], float],
    margins: torch.Tensor,
    folds: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    return mean(figure(margins[folds == fold], labels[folds == fold]) for fold in set(folds.tolist()))


def _accuracy(margins: torch.Tensor, labels: torch.Tensor) -> float:
    return ((margins >= 0) == (labels == 1)).double().mean().item()


def _write_predictions(path: Path, answers: OutOfFold, split: Split, plan: FoldPlan) -> None:
    """Write one row per repeat, epoch and slice: repeat, fold, epoch, path, label, group, probability."""
    probabilities = torch.softmax(answers.logits, dim=-1)[..., 1]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("repeat", "fold", "epoch", "path", "label", "group", "probability"))
        for repeat, (of_repeat, folds) in enumerate(zip(probabilities, answers.folds.tolist(), strict=True)):
            for epoch, of_epoch in enumerate(of_repeat.tolist()):
                for fold, labelled, group, probability in zip(folds, split.slices, plan.groups, of_epoch, strict=True):
                    rows.writerow((repeat, fold, epoch, labelled.path, labelled.label, group, f"{probability:.6f}"))
