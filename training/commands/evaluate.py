"""The command `evaluate`: existing model files, scored with the code that serves them."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.model.card import ModelCard
from service.model.file import load_on_cpu, read_manifest
from training.commands.options import check_paths
from training.data.covid_ct import CovidCt, Split, read_data
from training.data.labelled import read_originals
from training.data.near_copies import find_near_copies
from training.data.patients import known_patients
from training.data.source_table import aligned
from training.errors import TrainingError
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.model_files import EvaluatedSet, LabelledSet, SetScores, difference_of_auc, evaluate_set
from training.evaluation.scores import Scores, written
from training.report.shortcut_audit import header_rule
from training.report_recipe import ReportRecipe
from training.run.atomic_write import write_csv
from training.run.machine import use_threads
from training.run.progress import say
from training.run.record import Record

_FIGURES = ("auc", "sensitivity", "specificity", "accuracy")
_COLUMNS = ("model", "set", "file", "patient", "label", "probability", "refused")


@dataclass(frozen=True, slots=True)
class _EvaluatedFile:
    """A model file with its evaluated sets, in the order of the table."""

    folder: Path
    name: str
    card: ModelCard
    sets: list[EvaluatedSet]


class FileEvaluation(Record):
    """Scores of a model file by set."""

    file: str
    version: str
    threshold: float
    sets: dict[str, SetScores]


class Evaluations(Record):
    """The content of `--json`: every file, and the AUC of the first model minus that of the second by set."""

    files: list[FileEvaluation]
    differences: dict[str, dict[str, float]]


def run(options: argparse.Namespace) -> None:
    """Score each model file on labelled slices, on COVID-CT's test split and on altered test; compare two models."""
    options.models = options.models or [Path("models")]
    check_paths(options, ("data", "models", "labelled"), ("patients", "exclude"))
    if options.data is None and not options.labelled:
        raise TrainingError("pass --labelled FOLDER with your labelled slices, or --data with COVID-CT")
    use_threads(options.threads)
    manifests = [(folder, read_manifest(folder)) for folder in options.models]  # before minutes of reading
    covid_ct = read_data(options.data, options.counts, options.exclude) if options.data else None
    labelled = list(_labelled_sets(options.labelled, covid_ct))
    files = []
    for folder, file in [(folder, file) for folder, manifest in manifests for file in manifest.files]:
        model = load_on_cpu(folder, file)
        sets = [*_test_sets(options, covid_ct, model.card), *labelled]
        files.append(_EvaluatedFile(folder, file.name, model.card, [evaluate_set(model, set_) for set_ in sets]))
        _print(files[-1])
    differences = _differences(options.models, files)
    if covid_ct:
        rule = header_rule(covid_ct, seed=0)
        print(f"test, by file format alone: accuracy {rule.accuracy:.3f}, auc {rule.auc:.3f}")
    if options.json:
        Evaluations(files=[_as_record(file) for file in files], differences=differences).write(options.json)
    if options.csv:
        write_csv(options.csv, _COLUMNS, (row for file in files for row in _rows(file)))


def _labelled_sets(folders: Sequence[Path], covid_ct: CovidCt | None) -> Iterator[LabelledSet]:
    """Read sources of labelled slices; slices that show a picture of COVID-CT are left out."""
    known = [slice_.pixels for split in covid_ct or () for slice_ in split.slices]
    for folder in folders:
        split, patients = read_originals(folder)
        pixels = [slice_.pixels for slice_ in split.slices]
        copies = {copy.first for copy in find_near_copies(pixels, known)} if known else set()
        if copies:
            say(f"{folder}: {len(copies)} slices left out, which are in COVID-CT too")
        kept = [place for place in range(len(split.slices)) if place not in copies]
        yield LabelledSet(
            split.name,
            Split(split.name, tuple(split.slices[place] for place in kept)),
            None if patients is None else [patients[place] for place in kept],
        )


def _test_sets(options: argparse.Namespace, data: CovidCt | None, card: ModelCard) -> Iterator[LabelledSet]:
    """Yield validation if the model was not trained on it, test, and test altered in every way."""
    if data is None:
        return
    if _kept_validation_out(card):
        yield LabelledSet("val", data.val, None)
    patients = known_patients(options.patients, options.data, data.test)
    yield LabelledSet("test", data.test, patients)
    for name, alter in ALTERATIONS.items():
        yield LabelledSet(f"test, {name}", altered(data.test, alter), patients)


def _kept_validation_out(card: ModelCard) -> bool:
    """Whether validation only chose the epoch, by the card; the recipe `lesion` is trained on it."""
    return bool(card.training_config.get("name") == ReportRecipe.model_fields["name"].default)


def _as_record(file: _EvaluatedFile) -> FileEvaluation:
    return FileEvaluation(
        file=file.name,
        version=file.card.version,
        threshold=file.card.threshold,
        sets={set_.labelled.name: set_.scores for set_ in file.sets},
    )


def _print(file: _EvaluatedFile) -> None:
    print(f"{file.name}: version {file.card.version}, threshold {file.card.threshold:.3f}")
    rows: list[Sequence[str]] = [("set", "over", "slices", "refused", *_FIGURES)]
    for set_ in file.sets:
        name, scores = set_.labelled.name, set_.scores
        rows.append(_table_row(name, scores.scores, str(scores.refused)))
        if scores.answered is not None:
            rows.append(_table_row(f"{name}, not refused", scores.answered, "0"))
    print(aligned(rows))


def _table_row(name: str, scores: Scores, refused: str) -> tuple[str, ...]:
    over = f"{scores.patients.count} patients" if scores.patients else "slices"
    figures = (written(scores.figures[name]) for name in _FIGURES)  # type: ignore[index]
    return (name, over, str(scores.count), refused, *figures)


def _differences(folders: Sequence[Path], files: Sequence[_EvaluatedFile]) -> dict[str, dict[str, float]]:
    """Compare the first file of the first two models on the sets of both, slice by slice."""
    if len(folders) < 2:
        return {}
    first, second = (next(file for file in files if file.folder == folder) for folder in folders[:2])
    others = {set_.labelled.name: set_ for set_ in second.sets}
    differences = {}
    for set_ in [set_ for set_ in first.sets if set_.labelled.name in others]:
        labelled = set_.labelled
        one, other = (pair.probability[np.newaxis] for pair in (set_, others[labelled.name]))
        difference = difference_of_auc(one, other, labelled.split.labels.numpy(), labelled.patients)
        print(
            f"{labelled.name}: AUC of {folders[0]} minus that of {folders[1]}: {difference.value:+.3f} "
            f"({difference.low:+.3f} to {difference.high:+.3f}, paired)"
        )
        differences[labelled.name] = difference.model_dump()
    return differences


def _rows(file: _EvaluatedFile) -> Iterator[tuple[object, ...]]:
    for set_ in file.sets:
        slices = set_.labelled.split.slices
        patients = set_.labelled.patients or [""] * len(slices)
        for slice_, patient, p, refused in zip(slices, patients, set_.probability, set_.is_refused, strict=True):
            yield file.name, set_.labelled.name, slice_.path, patient, slice_.label, f"{p:.6f}", int(refused)
