"""The command `train`: everything from public data to the model that ships."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Final

from training.data.covid_ct import Split
from training.data.ct_slices import (
    CtSlice,
    from_covid_ct,
    read_corrections,
    read_images,
    read_labelled,
    read_lesions,
)
from training.data.papers import read_groups
from training.errors import TrainingError
from training.learning.lesion_fit import LesionFitSettings
from training.lesion_recipe import LesionRecipe
from training.options import add_data, add_machine, add_recipe_fields, read_data, read_recipe
from training.release.lesion_release import LesionData, LesionJob, release_lesions
from training.release.lesion_report import LesionReport
from training.run.machine import find_machine
from training.run.processes import current
from training.run.run_folder import claim_run_folder

_NO_OPTIONS: Final = ("name", "architecture")
"""Fields of the recipe that are no options."""


def add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "train",
        help="train, judge on left-out sources, and export the model that ships",
        description="Train the lung finder and the lesion network, judge them on sources that they never saw, evaluate "
        "official test once, and export. After an interrupt, the same command resumes the run.",
    )
    parser.set_defaults(command=_train)
    add_data(parser)
    parser.add_argument(
        "--patients", type=Path, help="CSV of file, class, split, patient of COVID-CT; default: every slice a patient"
    )
    parser.add_argument("--corrections", type=Path, help="CSV of file, split, class, problem: COVID-CT's label errors")
    parser.add_argument(
        "--lesions", type=Path, required=True, help="folder with slices.csv (file, source, volume) and lesion masks"
    )
    parser.add_argument(
        "--labelled",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="slices of another source: slices.csv (file, label, source, patient), or folders COVID and NonCOVID; "
        "repeatable",
    )
    parser.add_argument("--clear", type=Path, required=True, help="folder of chest slices without COVID, lungs clear")
    parser.add_argument("--unseen", type=Path, help="folder of chest slices that are only for judging the refusals")
    parser.add_argument(
        "--other", type=Path, help="folder of pictures that are no slices; every second one is trained on"
    )
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="SOURCE",
        help="labelled source that the judged network never sees; repeatable (default: every other source with both "
        "classes)",
    )
    parser.add_argument("--weights", type=Path, help="ImageNet weights in torchvision's layout (default: downloaded)")
    parser.add_argument("--run", type=Path, default=Path("runs/lesion"), help="folder for checkpoints (runs/lesion)")
    parser.add_argument("--fresh", action="store_true", help="delete the run folder first")
    parser.add_argument("--models", type=Path, help="folder for the results (default: model/ in the run folder)")
    parser.add_argument("--model-version", default="1.0.0", help="version in the model's card (1.0.0)")
    add_machine(parser)
    add_recipe_fields(parser, LesionRecipe, _NO_OPTIONS)


def _train(options: argparse.Namespace) -> None:
    recipe = read_recipe(options, LesionRecipe, _NO_OPTIONS)
    machine = find_machine(options.device, options.precision, 0)
    data = read_lesion_data(options)
    if options.fresh and current().is_first and options.run.exists():
        shutil.rmtree(options.run)
    leave_out = tuple(options.leave_out) or _with_both_classes(data.train)
    fit = LesionFitSettings(recipe, machine, options.weights, options.run, leave_out)
    job = LesionJob(fit, options.models or options.run / "model", options.model_version)
    claim_run_folder(
        options.run,
        {
            "recipe": recipe.model_dump(mode="json"),
            "leave_out": list(leave_out),
            "data": {name: own.model_dump() for name, own in job.fingerprints(data).items()},
        },
    )
    print(f"recipe lesion on {machine}; run folder {options.run}; left out: {', '.join(leave_out)}", file=sys.stderr)
    _print(release_lesions(job, data))
    print(f"written: {job.models_folder}")


def read_lesion_data(options: argparse.Namespace) -> LesionData:
    """Read all sources that the options name.

    Raises:
        TrainingError: a source can't be read; names the file.
    """
    covid_ct = read_data(options)
    corrections = read_corrections(options.corrections) if options.corrections else {}
    train = covid_ct.train_and_val()
    slices = from_covid_ct(train, _groups(options.patients, train), corrections)
    for folder in options.labelled:
        slices += read_labelled(folder)
    slices += read_lesions(options.lesions)
    slices += read_images(options.clear, "clear")
    return LesionData(
        train=slices,
        test=from_covid_ct(covid_ct.test, _groups(options.patients, covid_ct.test), {}),
        corrections=corrections,
        other=read_images(options.other, "other") if options.other else [],
        unseen=read_images(options.unseen, "clear") if options.unseen else [],
    )


def _groups(patients: Path | None, split: Split) -> tuple[str, ...]:
    if patients is None:
        return tuple(each.path for each in split.slices)
    return read_groups(patients, split)


def _with_both_classes(slices: list[CtSlice]) -> tuple[str, ...]:
    labels: dict[str, set[int]] = {}
    for each in slices:
        if each.kind == "labelled" and each.label is not None and each.source != "covid-ct":
            labels.setdefault(each.source, set()).add(each.label)
    both = tuple(sorted(name for name, own in labels.items() if len(own) == 2))
    if not both:
        raise TrainingError("--labelled: no source with both classes to leave out; pass one, or --leave-out SOURCE")
    return both


def _print(report: LesionReport) -> None:
    for name, source in report.judgement.sources.items():
        parts = ", ".join(
            f"{key} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for key, each in source.figures.items()
        )
        print(f"left out, {name} (n = {source.count}): {parts}")
    for name, scores in report.splits.items():
        parts = ", ".join(
            f"{key} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for key, each in scores.figures.items()
        )
        print(f"{name} (n = {scores.count}, threshold {scores.threshold:.3f}): {parts}")
    for name, altered in report.altered.items():
        print(f"test, {name}: auc {altered.auc_change:+.3f}, accuracy {altered.accuracy_change:+.3f}")
    lesions = report.judgement.lesions
    print(f"left-out masks (n = {lesions.slices}): cell AUC {lesions.cell_auc:.3f}, Dice {lesions.dice:.3f}")
