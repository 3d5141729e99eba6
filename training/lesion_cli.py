"""The command `train`: everything from public data to the model that ships."""

import argparse
import sys
from typing import Final

from training.data.covid_ct import Split, read_data
from training.data.ct_slices import (
    CtSlice,
    content_hash,
    from_covid_ct,
    read_corrections,
    read_images,
    read_labelled,
    read_lesions,
)
from training.data.left_out import check_left_out
from training.data.papers import group_by_paper
from training.data.patients import find_tables, known_patients
from training.errors import TrainingError
from training.learning.lesion_fit import LesionFitSettings
from training.lesion_recipe import NO_OPTIONS, LesionRecipe
from training.network.weights import check_weights
from training.options import check_paths, read_recipe
from training.release.lesion_release import LesionData, LesionJob, release_lesions
from training.release.lesion_report import LesionReport
from training.release.promotion import promote
from training.run.cost import confirm_cost, hours_of
from training.run.machine import Machine, find_machine
from training.run.processes import current
from training.run.progress import say
from training.run.record import hash_file
from training.run.run_folder import check_folder, claim_run_folder

_OPERATIONS_PER_PIXEL: Final = 90e9 / (192 * 256)
"""Of a slice in one training step: VGG-19 forwards, and backwards through three of its blocks."""


def train(options: argparse.Namespace) -> None:
    """Check all inputs, train or resume, print the results, and release the model if that was asked for."""
    recipe = read_recipe(options, LesionRecipe, NO_OPTIONS)
    _check_paths(options)
    machine = find_machine(options.device, options.precision, 0)
    weights = check_weights(recipe.architecture, options.weights)
    data = read_lesion_data(options)
    leave_out = tuple(options.leave_out) or _with_both_classes(data.train)
    check_left_out(data.train, leave_out)
    inputs = _inputs(options, data) | {"weights": weights}
    fit = LesionFitSettings(recipe, machine, options.weights, options.run, leave_out)
    job = LesionJob(fit, options.model_version, inputs)
    if current().is_first and (options.fresh or not options.run.exists()):
        _confirm(recipe, machine, sure=options.yes)
    claim_run_folder(
        options.run,
        {
            "recipe": recipe.model_dump(mode="json"),
            "leave_out": list(leave_out),
            "data": {name: own.model_dump() for name, own in job.fingerprints(data).items()},
            "inputs": inputs,
        },
        fresh=options.fresh,
    )
    say(f"recipe lesion on {machine}; run folder {options.run}; left out: {', '.join(leave_out)}")
    _print(release_lesions(job, data))
    print(f"written: {job.models_folder}", file=sys.stderr)
    if options.release is not None:
        promote(job.models_folder, options.release, anyway=options.release_anyway)


def _check_paths(options: argparse.Namespace) -> None:
    """Check what the options name before anything is read.

    Raises:
        TrainingError: a path is not there or of the wrong kind; the message names the option.
    """
    check_folder("--run", options.run)
    if options.release is not None:
        check_folder("--release", options.release)
    if options.release_anyway and options.release is None:
        raise TrainingError("--release-anyway: pass --release too")
    check_paths(
        options,
        ("data", "lesions", "clear", "unseen", "other", "labelled"),
        ("patients", "corrections", "exclude", "weights"),
    )


def read_lesion_data(options: argparse.Namespace) -> LesionData:
    """Read all sources that the options name.

    Raises:
        TrainingError: a source can't be read; names the file.
    """
    covid_ct = read_data(options.data, options.counts, options.exclude)
    corrections = read_corrections(options.corrections) if options.corrections else {}
    train, test = covid_ct.train_and_val(), covid_ct.test
    everyone = Split("all", train.slices + test.slices)
    patients = known_patients(options.patients, options.data, everyone)
    papers = group_by_paper(everyone, patients) if patients else tuple(each.path for each in everyone.slices)
    count = len(train.slices)
    learned = set(papers[:count])
    slices = from_covid_ct(train, papers[:count], corrections)
    for folder in options.labelled:
        slices += read_labelled(folder)
    slices += read_lesions(options.lesions)
    slices += read_images(options.clear, "clear")
    return LesionData(
        train=slices,
        # intervals on test resample patients; papers matter for training alone
        test=from_covid_ct(test, (patients or papers)[count:], {}),
        patients_are_known=patients is not None,
        known_papers=frozenset(
            each.path for each, paper in zip(test.slices, papers[count:], strict=True) if paper in learned
        ),
        corrections=corrections,
        other=read_images(options.other, "other") if options.other else [],
        unseen=read_images(options.unseen, "clear") if options.unseen else [],
    )


def _inputs(options: argparse.Namespace, data: LesionData) -> dict[str, str]:
    """Hash everything that a run is made from and that its fingerprints of grey values do not cover."""
    patients = find_tables(options.patients, options.data)
    tables = {
        **{"patients" if len(patients) == 1 else f"patients, {path.name}": path for path in patients},
        "corrections": options.corrections,
        "exclude": options.exclude,
    }
    hashes = {name: hash_file(path) for name, path in tables.items() if path is not None}
    slices = {"train": data.train, "test": data.test, "other": data.other, "unseen": data.unseen}
    return hashes | {f"{name} slices": content_hash(own) for name, own in slices.items()}


def _confirm(recipe: LesionRecipe, machine: Machine, *, sure: bool) -> None:
    pixels = recipe.box_height * recipe.box_width * recipe.batch_size * (recipe.steps + recipe.left_out_steps)
    hours = hours_of(pixels * _OPERATIONS_PER_PIXEL, machine)
    confirm_cost(hours, f"on {machine}, and 1 GB of disk", sure=sure)


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
        print(f"{name} {scores}")
        if scores.patients:
            print(f"{name}, by patient {scores.patients}")
    for name, altered in report.altered.items():
        print(f"test, {name}: auc {altered.auc_change:+.3f}, accuracy {altered.accuracy_change:+.3f}")
    lesions = report.judgement.lesions
    print(f"left-out masks (n = {lesions.slices}): cell AUC {lesions.cell_auc:.3f}, Dice {lesions.dice:.3f}")
