"""Cross-validation of a recipe over train and validation: how good it is on patients that it did not see.

Test is not looked at. Official validation is unlike test in this data, so that a choice on it alone is shaky.
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean

import torch
from pydantic import JsonValue

from service.model.card import SplitFingerprint
from training.data.covid_ct import Split
from training.data.folds import Folding
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.scores import Spread, auc_of, spread_of
from training.experiments.out_of_fold import OutOfFold, out_of_fold_logits
from training.learning.fit import Fitting
from training.recipe import RECIPES
from training.run.atomic_write import write_atomically
from training.run.record import Record, git_commit


class EpochFigures(Record):
    """Figures of the out-of-fold answers after one epoch; 0 is before fine-tuning. Spreads are over repeats.

    Attributes:
        auc: of all slices' logit margins at once, though they are of one network a fold.
        auc_by_fold: mean over folds of each one's own, which needs no margins to be comparable.
        accuracy: share of slices called rightly at a probability of 0.5.
        accuracy_by_fold: mean over folds of each one's own.
    """

    epoch: int
    auc: Spread
    auc_by_fold: Spread
    accuracy: Spread
    accuracy_by_fold: Spread


class Reencoded(Record):
    """The probe's answers to the held-out slices re-encoded alike (training/evaluation/alterations.py).

    Attributes:
        same_call: share of slices that are called as they were before, at 0.5.
    """

    figures: EpochFigures
    same_call: Spread


class CrossValidation(Record):
    """What `crossvalidate` writes as crossvalidation.json.

    Attributes:
        weights: where the pretrained weights came from.
        data: of train and validation together.
        groups: patients or papers, as config says, those of each class counted apart.
        seconds: wall time of all training.
    """

    config: dict[str, JsonValue]
    data: dict[str, SplitFingerprint]
    groups: int
    folds: int
    repeats: int
    git_commit: str
    machine: str
    weights: str
    epochs: tuple[EpochFigures, ...]
    reencoded: Reencoded | None
    seconds: float


def cross_validate(fitting: Fitting, split: Split, folding: Folding) -> CrossValidation:
    """Write crossvalidation.json and out-of-fold.csv into the run folder.

    Args:
        fitting: the recipe, and the folder for it all.
        split: the slices of `CovidCt.train_and_val`.
        folding: how they are dealt.

    Raises:
        TrainingError: the slices can't be dealt so, nothing is trained, or the folder holds another run.
    """
    reencoded = None if fitting.recipe.epochs else altered(split, ALTERATIONS["reencoded"])
    answers = out_of_fold_logits(fitting, split, folding, reencoded)
    record = CrossValidation(
        config=fitting.recipe.model_dump(mode="json"),
        data={split.name: split.fingerprint()},
        groups=len(set(folding.groups)),
        folds=folding.folds,
        repeats=folding.repeats,
        git_commit=git_commit(),
        machine=str(fitting.machine),
        weights=answers.source,
        epochs=tuple(
            _figures(epoch, _margins(answers.logits[:, epoch]), answers.folds, split.labels)
            for epoch in range(answers.logits.shape[1])
        ),
        reencoded=_reencoded(answers, split.labels),
        seconds=round(answers.seconds, 1),
    )
    fitting.run_folder.mkdir(parents=True, exist_ok=True)
    _write_predictions(fitting.run_folder / "out-of-fold.csv", answers, split, folding)
    text = record.model_dump_json(indent=2) + "\n"
    write_atomically(fitting.run_folder / "crossvalidation.json", lambda path: path.write_text(text))
    return record


def as_rows(record: CrossValidation) -> str:
    """The record as a Markdown table of one row an epoch, for docs/experiments.md."""
    lines = [
        "| commit | weights | recipe | folds x repeats | epoch | AUC | AUC, mean of folds | accuracy | AUC, re-encoded "
        "| same call | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    what = [
        record.git_commit[:7],
        record.weights,
        _recipe(record.config),
        f"{record.folds} x {record.repeats}, by {record.config['together']}",
    ]
    for row in record.epochs:
        figures = [str(each) for each in (row.auc, row.auc_by_fold, row.accuracy)]
        alike = ["", ""]
        if record.reencoded:
            alike = [str(record.reencoded.figures.auc), str(record.reencoded.same_call)]
        lines.append(f"| {' | '.join([*what, str(row.epoch), *figures, *alike, f'{record.seconds:.0f}'])} |")
    return "\n".join(lines)


def _recipe(config: Mapping[str, JsonValue]) -> str:
    """Name of the recipe, and the fields that were overridden."""
    name = str(config["name"])
    usual = RECIPES[name].model_dump(mode="json")
    told_beside_the_folds = "together"
    changed = [
        f"{field} {value}"
        for field, value in config.items()
        if value != usual[field] and field != told_beside_the_folds
    ]
    return ", ".join([f"`{name}`", *changed])


def _reencoded(answers: OutOfFold, labels: torch.Tensor) -> Reencoded | None:
    if answers.variant is None:
        return None
    before, after = _margins(answers.logits[:, 0]), _margins(answers.variant)
    same = ((before >= 0) == (after >= 0)).double().mean(1)
    return Reencoded(figures=_figures(0, after, answers.folds, labels), same_call=spread_of(same.tolist()))


def _margins(logits: torch.Tensor) -> torch.Tensor:
    """Of COVID over NonCOVID: float32 (..., 2) -> (...); 0 is a probability of 0.5."""
    return logits[..., 1] - logits[..., 0]


def _figures(epoch: int, margins: torch.Tensor, folds: torch.Tensor, labels: torch.Tensor) -> EpochFigures:
    """Figures of float (R, N) margins; `folds` as in OutOfFold, `labels` int64 (N,)."""
    repeats = list(zip(margins, folds, strict=True))
    return EpochFigures(
        epoch=epoch,
        auc=spread_of([_auc(margin, labels) for margin, _ in repeats]),
        auc_by_fold=spread_of([_mean_over_folds(_auc, *repeat, labels) for repeat in repeats]),
        accuracy=spread_of([_accuracy(margin, labels) for margin, _ in repeats]),
        accuracy_by_fold=spread_of([_mean_over_folds(_accuracy, *repeat, labels) for repeat in repeats]),
    )


def _mean_over_folds(
    figure: Callable[[torch.Tensor, torch.Tensor], float],
    margins: torch.Tensor,
    folds: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    return mean(figure(margins[folds == fold], labels[folds == fold]) for fold in set(folds.tolist()))


def _auc(margins: torch.Tensor, labels: torch.Tensor) -> float:
    return float(auc_of(margins[:, None].numpy(), labels[:, None].numpy())[0])


def _accuracy(margins: torch.Tensor, labels: torch.Tensor) -> float:
    return ((margins >= 0) == (labels == 1)).double().mean().item()


def _write_predictions(path: Path, answers: OutOfFold, split: Split, folding: Folding) -> None:
    """One row a repeat, epoch and slice: repeat, fold, epoch, path, label, group, probability."""
    probabilities = torch.softmax(answers.logits, dim=-1)[..., 1]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("repeat", "fold", "epoch", "path", "label", "group", "probability"))
        for repeat, (of_repeat, folds) in enumerate(zip(probabilities, answers.folds.tolist(), strict=True)):
            for epoch, of_epoch in enumerate(of_repeat.tolist()):
                for fold, scan, group, probability in zip(folds, split.scans, folding.groups, of_epoch, strict=True):
                    rows.writerow((repeat, fold, epoch, scan.path, scan.label, group, f"{probability:.6f}"))
