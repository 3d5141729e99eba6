"""The command `evaluate`: existing model files, scored with the code that serves them."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from service.model.card import ModelCard
from service.model.file import LoadedModel, load_on_cpu, read_manifest
from training.data.covid_ct import CovidCt, Split, read_data
from training.data.labelled import read_originals
from training.data.near_copies import find_near_copies
from training.data.patients import known_patients
from training.data.source_table import aligned
from training.errors import TrainingError
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.model_files import (
    EvaluatedSet,
    FileAnswers,
    SetScores,
    answer_set,
    difference_of_auc,
    score_set,
)
from training.evaluation.scores import Scores
from training.evaluation.shortcut_audit import header_rule
from training.options import check_paths
from training.report_recipe import ReportRecipe
from training.run.atomic_write import write_csv, write_text
from training.run.machine import use_threads
from training.run.progress import say
from training.run.record import Record

Evaluated: TypeAlias = dict[str, FileAnswers]
"""Answers of one model file by set."""

_FIGURES = ("auc", "sensitivity", "specificity", "accuracy")


class FileEvaluation(Record):
    """Scores of a model file by set."""

    file: str
    version: str
    threshold: float
    sets: dict[str, SetScores]


class Evaluations(Record):
    """The content of `--json`: every file, and the AUC of the first model less that of the second by set."""

    files: list[FileEvaluation]
    differences: dict[str, dict[str, float]]


def evaluate(options: argparse.Namespace) -> None:
    """Score each model file on labelled slices, on COVID-CT's test split and on altered test; compare two models."""
    folders = options.models or [Path("models")]
    options.models = folders
    check_paths(options, ("data", "models", "labelled"), ("patients", "exclude"))
    if options.data is None and not options.labelled:
        raise TrainingError("pass --labelled FOLDER with slices of your own, or --data with COVID-CT")
    use_threads(options.threads)
    files = [(folder, file) for folder in folders for file in read_manifest(folder).files]  # before minutes of reading
    covid_ct = read_data(options.data, options.counts, options.exclude) if options.data else None
    sets = dict(_labelled_sets(options.labelled, covid_ct))
    evaluations, answers = [], []
    for folder, file in files:
        model = load_on_cpu(folder, file)
        own = (_test_sets(options, covid_ct, model.card) if covid_ct else {}) | sets
        answered = {name: answer_set(model, evaluated) for name, evaluated in own.items()}
        evaluations.append(_score(file.name, model, own, answered))
        answers.append((folder, own, answered))
        _print(evaluations[-1])
    differences = _differences(folders, answers)
    if covid_ct:
        rule = header_rule(covid_ct, seed=0)
        print(f"test, by file format alone: accuracy {rule.accuracy:.3f}, auc {rule.auc:.3f}")
    if options.json:
        write_text(options.json, Evaluations(files=evaluations, differences=differences).model_dump_json(indent=2))
    if options.csv:
        names = [evaluation.file for evaluation in evaluations]
        rows = (
            row for name, (_, own, answered) in zip(names, answers, strict=True) for row in _rows(name, own, answered)
        )
        write_csv(options.csv, ("model", "set", "file", "patient", "label", "probability", "refused"), rows)


def _labelled_sets(folders: Sequence[Path], covid_ct: CovidCt | None) -> Iterator[tuple[str, EvaluatedSet]]:
    """Read sources of labelled slices; those that show a picture of COVID-CT too are left out."""
    for folder in folders:
        split, groups = read_originals(folder)
        known = [slice_.pixels for known_split in covid_ct or () for slice_ in known_split.slices]
        copies = (
            {copy.first for copy in find_near_copies([slice_.pixels for slice_ in split.slices], known)}
            if known
            else set()
        )
        if copies:
            say(f"{folder}: {len(copies)} slices left out, which are in COVID-CT too")
        kept = [place for place in range(len(split.slices)) if place not in copies]
        patients = None if groups is None else [groups[place] for place in kept]
        yield split.name, EvaluatedSet(Split(split.name, tuple(split.slices[place] for place in kept)), patients)


def _test_sets(options: argparse.Namespace, data: CovidCt, card: ModelCard) -> dict[str, EvaluatedSet]:
    """Validation if the model was not trained on it, test, and test altered in every way."""
    patients = known_patients(options.patients, options.data, data.test)
    sets = {"val": EvaluatedSet(data.val, None)} if _kept_validation_out(card) else {}
    sets["test"] = EvaluatedSet(data.test, patients)
    return sets | {
        f"test, {name}": EvaluatedSet(altered(data.test, alter), patients) for name, alter in ALTERATIONS.items()
    }


def _kept_validation_out(card: ModelCard) -> bool:
    """Read from a card whether validation only chose the epoch; the recipe `lesion` is trained on it."""
    return bool(card.training_config.get("name") == ReportRecipe.model_fields["name"].default)


def _score(name: str, model: LoadedModel, sets: Mapping[str, EvaluatedSet], answered: Evaluated) -> FileEvaluation:
    threshold = model.card.threshold
    scored = {set_name: score_set(answered[set_name], evaluated, threshold) for set_name, evaluated in sets.items()}
    return FileEvaluation(file=name, version=model.card.version, threshold=threshold, sets=scored)


def _print(evaluation: FileEvaluation) -> None:
    print(f"{evaluation.file}: version {evaluation.version}, threshold {evaluation.threshold:.3f}")
    rows: list[Sequence[str]] = [("set", "over", "slices", "refused", *_FIGURES)]
    for name, own in evaluation.sets.items():
        rows.append(_row(name, own.scores, str(own.refused)))
        if own.answered is not None:
            rows.append(_row(f"{name}, not refused", own.answered, "0"))
    print(aligned(rows))


def _row(name: str, scores: Scores, refused: str) -> tuple[str, ...]:
    over = f"{scores.patients.count} patients" if scores.patients else "slices"
    figures = (scores.figures[name] for name in _FIGURES)  # type: ignore[index]
    texts = (f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})" for figure in figures)
    return (name, over, str(scores.count), refused, *texts)


def _differences(
    folders: Sequence[Path], answers: Sequence[tuple[Path, dict[str, EvaluatedSet], Evaluated]]
) -> dict[str, dict[str, float]]:
    """Compare the first file of the first two models on the sets of both, slice by slice."""
    if len(folders) < 2:
        return {}
    (_, sets, first), (_, _, second) = (next(own for own in answers if own[0] == folder) for folder in folders[:2])
    differences = {}
    for name in [name for name in sets if name in second]:
        labels, groups = sets[name].split.labels.numpy(), sets[name].groups
        one, other = (answered[name].probability[np.newaxis] for answered in (first, second))
        difference = difference_of_auc(one, other, labels, groups)
        print(
            f"{name}: AUC of {folders[0]} less that of {folders[1]}: {difference.value:+.3f} "
            f"({difference.low:+.3f} to {difference.high:+.3f}, paired)"
        )
        differences[name] = difference.model_dump()
    return differences


def _rows(name: str, sets: Mapping[str, EvaluatedSet], answered: Evaluated) -> Iterator[tuple[object, ...]]:
    for set_name, evaluated in sets.items():
        groups = evaluated.groups or [""] * len(evaluated.split.slices)
        own = answered[set_name]
        for slice_, group, p, refused in zip(
            evaluated.split.slices, groups, own.probability, own.is_refused, strict=True
        ):
            yield name, set_name, slice_.path, group, slice_.label, f"{p:.6f}", int(refused)
