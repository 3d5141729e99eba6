"""The command `report`: the experiment of the report that this project started from."""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final, get_args

from training.commands.options import check_paths, read_recipe
from training.commands.recipe_files import write_recipe_file
from training.data.covid_ct import CovidCt
from training.data.patients import read_with_patients
from training.errors import TrainingError
from training.network.weights import check_weights
from training.report.page import not_learned, run_name, write_page
from training.report.run import ReportJob, claim, run_report
from training.report_recipe import Architecture, ReportRecipe
from training.run.machine import find_machine, use_threads
from training.run.progress import print_red, say
from training.run.run_folder import check_folder, locked

_ARCHITECTURES: Final = get_args(Architecture)


def run(options: argparse.Namespace) -> None:
    """Check all inputs, then train or resume each network with each seed, and write the page."""
    recipe = read_recipe(options, ReportRecipe)
    weights = dict(_weights_of(text) for text in options.weights)
    check_folder("--out", options.out)
    check_paths(options, ("data",), ("patients", "exclude"))
    use_threads(options.threads)
    machine = find_machine(options.device, options.precision, options.workers)
    pairs = list(product(dict.fromkeys(options.architectures), dict.fromkeys(options.seeds)))
    for name in {architecture: None for architecture, _ in pairs}:
        check_weights(name, weights.get(name))
    data = read_with_patients(options.data, options.counts, options.exclude, options.patients)
    jobs = []
    for architecture, seed in pairs:
        changed = ReportRecipe.model_validate({**recipe.model_dump(), "architecture": architecture, "seed": seed})
        folder = options.out / f"{architecture}-{seed}"
        check_folder("--out", folder, fresh=options.fresh)
        jobs.append(
            ReportJob(
                changed,
                machine,
                weights.get(architecture),
                folder,
                options.model_version,
                options.export_anyway,
                checkpoint_seconds=60 * options.checkpoint_minutes,
            )
        )
    with locked(options.out):
        _run_all(options, jobs, data)


def _run_all(options: argparse.Namespace, jobs: Sequence[ReportJob], data: CovidCt) -> None:
    for job in jobs:
        claim(job, data, fresh=options.fresh)
    write_recipe_file(options.out, options, jobs[0].recipe)
    say(f"recipe report on {jobs[0].machine}; folder {options.out}")
    records = []
    for number, job in enumerate(jobs, 1):
        say(f"{number}/{len(jobs)} {job.recipe.architecture}, seed {job.recipe.seed}")
        records.append(run_report(job, data))
    print(write_page(options.out, records, data))
    for record in records:
        if not record.learned:
            print_red(f"{run_name(record)}: {not_learned(record)}")
    print(f"written: {options.out / 'report.md'} and plots", file=sys.stderr)


def _weights_of(text: str) -> tuple[str, Path]:
    architecture, separator, path = text.partition("=")
    if not separator or architecture not in _ARCHITECTURES:
        raise TrainingError(f"--weights {text}: must be {' or '.join(_ARCHITECTURES)}, then =FILE")
    if not Path(path).is_file():
        raise TrainingError(f"--weights {text}: there is no such file")
    return architecture, Path(path)
