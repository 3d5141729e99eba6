"""The command `train`: from public data to the model that ships."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from training.commands.options import check_paths, read_recipe
from training.commands.recipe_files import write_recipe_file
from training.commands.source_table import aligned, source_table
from training.data.ct_slices import content_hash
from training.data.left_out import check_parts, choose_left_out
from training.data.lesion_data import LesionData, LesionInputs, LesionPaths, read_lesion_inputs
from training.data.patients import find_tables
from training.errors import TrainingError
from training.evaluation.scores import written
from training.learning.lesion_fit import LesionJob
from training.lesion_recipe import LENGTHS, LesionRecipe
from training.models.promotion import check_version, promote
from training.models.run_record import NOT_LEARNED
from training.network.weights import check_weights
from training.release.lesion_export import NOT_BETTER_THAN_CHANCE
from training.release.lesion_record import LesionRunRecord
from training.release.lesion_release import release_lesions
from training.release.run_length import take_lengths
from training.run.machine import find_machine, use_threads
from training.run.processes import current
from training.run.progress import print_red, say
from training.run.provenance import hash_file
from training.run.run_folder import check_folder, claim_run_folder, locked


def run(options: argparse.Namespace) -> None:
    """Check all inputs, train or resume, print the results, and release the model with --release."""
    recipe = read_recipe(options, LesionRecipe)
    _check_options(options)
    use_threads(options.threads)
    machine = find_machine(options.device, options.precision, 0)
    inputs = read_lesion_inputs(_paths(options), allow_copies=options.allow_copies)
    weights, leave_out = "", tuple(options.leave_out)
    with inputs.collecting():
        if options.weights or not options.check:  # a check downloads nothing
            weights = check_weights(recipe.architecture, options.weights)
    with inputs.collecting():
        leave_out = leave_out or _with_both_classes(inputs)
        if inputs.data is not None:
            check_parts(inputs.data.train, choose_left_out(inputs.data.train, leave_out))
    _show(inputs, check=options.check)
    if options.check or inputs.data is None:
        return
    hashes = _hashes(options, inputs.data) | {"weights": weights}
    job = LesionJob(
        recipe,
        machine,
        options.weights,
        options.run,
        options.model_version,
        options.export_anyway,
        leave_out=leave_out,
        inputs=hashes,
    )
    with locked(options.run):
        _train(options, job, inputs.data)


def _train(options: argparse.Namespace, job: LesionJob, data: LesionData) -> None:
    claim_run_folder(
        options.run,
        {
            "recipe": job.recipe.model_dump(mode="json", exclude=set(LENGTHS)),
            "leave_out": list(job.leave_out),
            "data": {name: fingerprint.model_dump() for name, fingerprint in data.fingerprints().items()},
            "inputs": dict(job.inputs),
        },
        fresh=options.fresh,
    )
    take_lengths(options.run, {name: getattr(job.recipe, name) for name in LENGTHS})
    if current().is_first:
        write_recipe_file(options.run, options, job.recipe)
    say(f"recipe lesion on {job.machine}; run folder {options.run}; left out: {', '.join(job.leave_out)}")
    record = release_lesions(job, data)
    _print(record)
    if not record.learned:
        no_file = "" if record.files else " No model file was written; --export-anyway writes both."
        print_red(NOT_LEARNED.format(reason=NOT_BETTER_THAN_CHANCE) + no_file)
    print(f"written: {job.models_folder}", file=sys.stderr)
    if options.release is not None:
        promote(job.models_folder, options.release, anyway=options.release_anyway)


def _check_options(options: argparse.Namespace) -> None:
    """Check the options before anything is read."""
    check_folder("--run", options.run, fresh=options.fresh)
    if options.release is not None:
        check_folder("--release", options.release)
        check_version(options.release, options.model_version)
    if options.release_anyway and options.release is None:
        raise TrainingError("--release-anyway: pass --release too")
    check_paths(
        options,
        ("data", "lesions", "clear", "unseen", "other", "labelled"),
        ("patients", "corrections", "exclude", "weights"),
    )
    if not options.labelled and not options.leave_out:
        raise TrainingError(
            "--labelled: pass a source with both classes, on which the network is judged, or name one with --leave-out"
        )


def _paths(options: argparse.Namespace) -> LesionPaths:
    values = {field.name: getattr(options, field.name) for field in fields(LesionPaths)}
    return LesionPaths(**{**values, "labelled": tuple(options.labelled)})


def _show(inputs: LesionInputs, *, check: bool) -> None:
    """Print the table of sources and their problems."""
    if inputs.slices:
        table = source_table(inputs.slices)
        print(table) if check else say(table)
    if inputs.problems and not check:
        more = f" (and {len(inputs.problems) - 1} more; --check lists them)" if len(inputs.problems) > 1 else ""
        raise TrainingError(inputs.problems[0] + more)
    for problem in inputs.problems:
        print(f"problem: {problem}")
    if inputs.problems:
        raise TrainingError(f"{len(inputs.problems)} of the inputs' problems must be solved before training")
    if check:
        print("all inputs can be used")


def _hashes(options: argparse.Namespace, data: LesionData) -> dict[str, str]:
    """Hash all inputs of a run that its fingerprints of grey values do not cover."""
    patients = find_tables(options.patients, options.data)
    tables = {
        **{"patients" if len(patients) == 1 else f"patients, {path.name}": path for path in patients},
        "corrections": options.corrections,
        "exclude": options.exclude,
    }
    hashes = {name: hash_file(path) for name, path in tables.items() if path is not None}
    slices = {"train": data.train, "test": data.test, "other": data.other, "unseen": data.unseen}
    return hashes | {f"{name} slices": content_hash(members) for name, members in slices.items()}


def _with_both_classes(inputs: LesionInputs) -> tuple[str, ...]:
    """Name the labelled sources with both classes, except COVID-CT."""
    labels: dict[str, set[int]] = {}
    for use, slices in inputs.slices.items():
        for slice_ in slices if use.startswith("--labelled") else ():
            if slice_.label is not None:
                labels.setdefault(slice_.source, set()).add(slice_.label)
    both = tuple(sorted(source for source, present in labels.items() if len(present) == 2))
    if not both:
        raise TrainingError("--labelled: no source with both classes to leave out; pass one, or --leave-out SOURCE")
    return both


def _print(record: LesionRunRecord) -> None:
    print(_result_table(record))
    for name, altered in record.altered.items():
        print(f"test, {name}: auc {altered.auc_change:+.3f}, accuracy {altered.accuracy_change:+.3f}")
    lesions = record.judgement.lesions
    print(f"left-out masks (n = {lesions.slices}): cell AUC {lesions.cell_auc:.3f}, Dice {lesions.dice:.3f}")


def _result_table(record: LesionRunRecord) -> str:
    """Build a table of left-out sources, each at a threshold chosen on the others where there are any, and of test."""
    judgement = record.judgement
    rows: list[Sequence[str]] = [("set", "over", "slices", "threshold", "auc", "sensitivity", "specificity")]
    for name, source in judgement.sources.items():
        over = "slices" if source.groups == source.count else f"{source.groups} groups"
        threshold, rates = judgement.threshold, (source.figures["sensitivity"], source.figures["specificity"])
        if source.nested:
            threshold, nested = source.nested.threshold, source.nested.rates
            rates = (nested.sensitivity, nested.specificity)
        figures = (source.figures["auc"], *rates)
        rows.append((f"left out, {name}", over, str(source.count), f"{threshold:.2f}", *map(written, figures)))
    for name, scores in record.splits.items():
        over = f"{scores.patients.count} patients" if scores.patients else "slices"
        figures = (scores.figures["auc"], scores.figures["sensitivity"], scores.figures["specificity"])
        rows.append((name, over, str(scores.count), f"{scores.threshold:.2f}", *map(written, figures)))
    return aligned(rows)
