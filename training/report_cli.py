"""The command `report`: the experiment of the report that this project started from."""

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Final, get_args

from training.data.covid_ct import read_data
from training.data.patients import known_patients
from training.errors import TrainingError
from training.learning.report_fit import FitSettings, claim
from training.network.weights import check_weights
from training.options import check_paths, read_recipe
from training.release.report_page import write_page
from training.release.report_run import ReportJob, run_report
from training.report_recipe import NO_OPTIONS, Architecture, ReportRecipe
from training.run.cost import confirm_cost, hours_of
from training.run.machine import Machine, find_machine
from training.run.progress import say
from training.run.run_folder import check_folder, delete

_ARCHITECTURES: Final = get_args(Architecture)

_OPERATIONS_PER_SLICE: Final = 120e9
"""Of a slice of 224 x 224 pixels in a training step of VGG-19: 20 G multiplications and as many additions, thrice."""


def report(options: argparse.Namespace) -> None:
    """Check all inputs, then train or resume each network with each seed, and write the page."""
    recipe = read_recipe(options, ReportRecipe, NO_OPTIONS)
    weights = dict(_weights_of(each) for each in options.weights)
    check_folder("--out", options.out)
    check_paths(options, ("data",), ("patients", "exclude"))
    machine = find_machine(options.device, options.precision, options.workers)
    pairs = list(product(dict.fromkeys(options.architectures), dict.fromkeys(options.seeds)))
    for name in {architecture: None for architecture, _ in pairs}:
        check_weights(name, weights.get(name))
    data = read_data(options.data, options.counts, options.exclude)
    patients = known_patients(options.patients, options.data, data.test)
    jobs = []
    for architecture, seed in pairs:
        changed = ReportRecipe.model_validate({**recipe.model_dump(), "architecture": architecture, "seed": seed})
        folder = options.out / f"{architecture}-{seed}"
        seconds = 60 * options.checkpoint_minutes
        settings = FitSettings(changed, machine, weights.get(architecture), folder, seconds)
        jobs.append(ReportJob(settings, options.model_version, patients))
    if options.fresh or not options.out.exists():
        _confirm(recipe, machine, len(data.train.slices) * len(jobs), sure=options.yes)
    if options.fresh:
        delete(options.out)
    for job in jobs:
        claim(job.settings, data)
    say(f"recipe report on {machine}; folder {options.out}")
    reports = []
    for number, job in enumerate(jobs, 1):
        say(f"{number}/{len(jobs)} {job.settings.recipe.architecture}, seed {job.settings.recipe.seed}")
        reports.append(run_report(job, data))
    print(write_page(options.out, reports, data, patients))
    print(f"written: {options.out / 'report.md'} and plots", file=sys.stderr)


def _confirm(recipe: ReportRecipe, machine: Machine, slices: int, *, sure: bool) -> None:
    operations = _OPERATIONS_PER_SLICE * (recipe.input_size / 224) ** 2 * slices * recipe.epochs
    hours = hours_of(operations, machine)
    confirm_cost(hours, f"{recipe.epochs} epochs a network, on {machine}, and 3 GB of disk a network", sure=sure)


def _weights_of(text: str) -> tuple[str, Path]:
    architecture, separator, path = text.partition("=")
    if not separator or architecture not in _ARCHITECTURES:
        raise TrainingError(f"--weights {text}: must be {' or '.join(_ARCHITECTURES)}, then =FILE")
    if not Path(path).is_file():
        raise TrainingError(f"--weights {text}: there is no such file")
    return architecture, Path(path)
