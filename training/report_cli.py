"""The command `report`: the experiment of the report that this project started from."""

import argparse
import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Final, get_args

from training.errors import TrainingError
from training.learning.report_fit import FitSettings
from training.options import add_data, add_machine, add_recipe_fields, read_data, read_recipe
from training.release.report_page import write_page
from training.release.report_run import ReportJob, run_report
from training.report_recipe import Architecture, ReportRecipe
from training.run.machine import find_machine
from training.run.progress import say

_ARCHITECTURES: Final = get_args(Architecture)
_NO_OPTIONS: Final = ("name", "architecture", "seed")
"""Fields of the recipe that `--architectures` and `--seeds` set."""


def add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "report",
        help="repeat the experiment of the report: VGG-19 and VGG-16, fine-tuned on COVID-CT alone",
        description="Fine-tune each network with each seed, score test once, and write report.md with the report's "
        "figures next to these. After an interrupt, the same command resumes; finished runs are not repeated.",
    )
    parser.set_defaults(command=_report)
    add_data(parser)
    parser.add_argument("--architectures", nargs="+", choices=_ARCHITECTURES, default=_ARCHITECTURES, help="(all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="(0)")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NETWORK=FILE",
        help="ImageNet weights of one network, in torchvision's layout; repeatable (default: downloaded)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/report"), help="folder for all results (runs/report)")
    parser.add_argument("--fresh", action="store_true", help="delete the folder first")
    parser.add_argument("--model-version", default="1.0.0", help="version in the models' cards (1.0.0)")
    add_machine(parser)
    parser.add_argument("--workers", type=int, help="processes that load slices (CPU: none, GPU: up to 8)")
    add_recipe_fields(parser, ReportRecipe, _NO_OPTIONS)


def _report(options: argparse.Namespace) -> None:
    recipe = read_recipe(options, ReportRecipe, _NO_OPTIONS)
    weights = dict(_weights_of(each) for each in options.weights)
    machine = find_machine(options.device, options.precision, options.workers)
    data = read_data(options)
    if options.fresh and options.out.exists():
        shutil.rmtree(options.out)
    print(f"recipe report on {machine}; folder {options.out}", file=sys.stderr)
    pairs = list(product(dict.fromkeys(options.architectures), dict.fromkeys(options.seeds)))
    reports = []
    for number, (architecture, seed) in enumerate(pairs, 1):
        say(f"run {number} of {len(pairs)}: {architecture}, seed {seed}")
        changed = ReportRecipe.model_validate({**recipe.model_dump(), "architecture": architecture, "seed": seed})
        folder = options.out / f"{architecture}-{seed}"
        settings = FitSettings(changed, machine, weights.get(architecture), folder)
        reports.append(run_report(ReportJob(settings, options.model_version), data))
    print(write_page(options.out, reports, data))
    print(f"written: {options.out / 'report.md'} and plots")


def _weights_of(text: str) -> tuple[str, Path]:
    architecture, separator, path = text.partition("=")
    if not separator or architecture not in _ARCHITECTURES:
        raise TrainingError(f"--weights {text}: must be {' or '.join(_ARCHITECTURES)}, then =FILE")
    if not Path(path).is_file():
        raise TrainingError(f"--weights {text}: there is no such file")
    return architecture, Path(path)
