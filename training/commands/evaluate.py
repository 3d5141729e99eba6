"""The command `evaluate`: existing model files, scored with the code that serves them."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from service.model.card import Interval, ModelCard
from service.model.file import load_on_cpu, read_manifest
from training.commands.options import check_paths
from training.commands.source_table import aligned
from training.data.covid_ct import CovidCt, Split
from training.data.labelled import read_originals
from training.data.near_copies import find_near_copies
from training.data.patients import read_with_patients
from training.errors import TrainingError
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.scores import Scores, difference_of_auc, written
from training.models.file_scores import EvaluatedSet, SetScores, evaluate_set
from training.report.scores import header_rule
from training.report_recipe import ReportRecipe
from training.run.atomic_write import write_csv
from training.run.machine import use_threads
from training.run.progress import say
from training.run.record import Record

_FIGURES = ("auc", "sensitivity", "specificity", "accuracy")
_COLUMNS = ("model", "set", "file", "patient", "label", "probability", "refused")


class FileEvaluation(Record):
    """Scores of a model file by set."""

    file: str
    version: str
    threshold: float
    sets: dict[str, SetScores]


class Evaluations(Record):
    """The content of `--json`: every file, and the AUC of the first model minus that of the second by set."""

    files: list[FileEvaluation]
    differences: dict[str, Interval]


def run(options: argparse.Namespace) -> None:
    """Score each model file on labelled slices, on COVID-CT's test split and on altered test; compare two models."""
    _check_options(options)
    use_threads(options.threads)
    folders = options.models or [Path("models")]
    manifests = {folder: read_manifest(folder) for folder in folders}  # before minutes of reading
    covid_ct = _read_covid_ct(options)
    labelled = list(_labelled_sets(options.labelled, covid_ct))
    _check_names_differ(labelled, covid_ct)
    records: list[FileEvaluation] = []
    rows: list[tuple[object, ...]] = []
    first_files: list[list[EvaluatedSet]] = []
    for folder, manifest in manifests.items():
        for place, file in enumerate(manifest.files):
            model = load_on_cpu(folder, file)
            card = model.card
            sets = [evaluate_set(model, set_) for set_ in (*_test_sets(covid_ct, card), *labelled)]
            scores = {set_.split.name: set_.scores for set_ in sets}
            records.append(FileEvaluation(file=file.name, version=card.version, threshold=card.threshold, sets=scores))
            rows += _rows(file.name, sets)
            _print(records[-1])
            if place == 0:
                first_files.append(sets)
    differences = _differences(folders, first_files)
    if covid_ct:
        rule = header_rule(covid_ct, seed=0)
        print(f"test, by file format alone: accuracy {rule.accuracy:.3f}, auc {rule.auc:.3f}")
    if options.json:
        Evaluations(files=records, differences=differences).write(options.json)
    if options.csv:
        write_csv(options.csv, _COLUMNS, rows)


def _check_options(options: argparse.Namespace) -> None:
    """Check the options before anything is read."""
    check_paths(options, ("data", "models", "labelled"), ("patients", "exclude"))
    if options.data is None and not options.labelled:
        raise TrainingError("pass --labelled FOLDER with your labelled slices, or --data with COVID-CT")
    for option in ("json", "csv"):
        path = getattr(options, option)
        if path is not None and not path.parent.is_dir():
            raise TrainingError(f"--{option} {path}: there is no folder {path.parent}")


def _read_covid_ct(options: argparse.Namespace) -> CovidCt | None:
    if options.data is None:
        return None
    return read_with_patients(options.data, options.counts, options.exclude, options.patients)


def _labelled_sets(folders: Sequence[Path], covid_ct: CovidCt | None) -> Iterator[Split]:
    """Read sources of labelled slices; slices that show a picture of COVID-CT are left out."""
    known = [slice_.pixels for split in covid_ct or () for slice_ in split.slices]
    for folder in folders:
        split = read_originals(folder)
        pixels = [slice_.pixels for slice_ in split.slices]
        copies = {place for place, _ in find_near_copies(pixels, known)} if known else set()
        if copies:
            say(f"{folder}: {len(copies)} slices left out, which are in COVID-CT too")
        kept = [place for place in range(len(split.slices)) if place not in copies]
        patients = None if split.patients is None else tuple(split.patients[place] for place in kept)
        yield Split(split.name, tuple(split.slices[place] for place in kept), patients)


def _check_names_differ(labelled: Sequence[Split], covid_ct: CovidCt | None) -> None:
    """Check that the name of a folder identifies its scores."""
    names = [split.name for split in (*labelled, *(covid_ct or ()))]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise TrainingError(f"--labelled: two sets are named {twice[0]}; give one folder another name")


def _test_sets(data: CovidCt | None, card: ModelCard) -> Iterator[Split]:
    """Yield validation if the model was not trained on it, test, and test altered in every way."""
    if data is None:
        return
    # the recipe `lesion` is trained on validation
    if card.training_config.get("name") == ReportRecipe.model_fields["name"].default:
        yield data.val
    yield data.test
    for name, alter in ALTERATIONS.items():
        yield replace(altered(data.test, alter), name=f"test, {name}")


def _print(file: FileEvaluation) -> None:
    print(f"{file.file}: version {file.version}, threshold {file.threshold:.3f}")
    rows: list[Sequence[str]] = [("set", "over", "slices", "refused", *_FIGURES)]
    for name, scores in file.sets.items():
        rows.append(_table_row(name, scores.scores, str(scores.refused)))
        if scores.answered is not None:
            rows.append(_table_row(f"{name}, not refused", scores.answered, "0"))
    print(aligned(rows))


def _table_row(name: str, scores: Scores, refused: str) -> tuple[str, ...]:
    over = f"{scores.patients.count} patients" if scores.patients else "slices"
    figures = (written(scores.figures[name]) for name in _FIGURES)  # type: ignore[index]
    return (name, over, str(scores.count), refused, *figures)


def _differences(folders: Sequence[Path], first_files: Sequence[Sequence[EvaluatedSet]]) -> dict[str, Interval]:
    """Compare the first files of the first two models on the sets of both, slice by slice."""
    if len(first_files) < 2:
        return {}
    others = {set_.split.name: set_ for set_ in first_files[1]}
    differences = {}
    for set_ in [set_ for set_ in first_files[0] if set_.split.name in others]:
        split = set_.split
        one, other = (pair.probability[None] for pair in (set_, others[split.name]))
        difference = difference_of_auc(one, other, split.labels.numpy(), split.patients)
        print(
            f"{split.name}: AUC of {folders[0]} minus that of {folders[1]}: {difference.value:+.3f} "
            f"({difference.low:+.3f} to {difference.high:+.3f}, paired)"
        )
        differences[split.name] = difference
    return differences


def _rows(file: str, sets: Sequence[EvaluatedSet]) -> Iterator[tuple[object, ...]]:
    for set_ in sets:
        split = set_.split
        patients = split.patients or [""] * len(split.slices)
        for slice_, patient, p, refused in zip(split.slices, patients, set_.probability, set_.refused, strict=True):
            yield file, split.name, slice_.path, patient, slice_.label, f"{p:.6f}", int(refused)
