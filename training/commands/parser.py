"""Commands of `python -m training` and their options. Imports no torch, so that --help takes no seconds."""

import argparse
from pathlib import Path
from typing import TypeAlias, get_args

from service import __version__
from training.commands.option_parser import OptionParser
from training.commands.options import (
    add_data,
    add_labelled,
    add_recipe_fields,
    add_run,
    add_threads,
    positive,
)
from training.commands.recipe_files import KNOWN_LABEL_ERRORS
from training.lesion_recipe import LesionRecipe
from training.report_recipe import Architecture, ReportRecipe

Commands: TypeAlias = "argparse._SubParsersAction[OptionParser]"  # noqa: SLF001 - it has no public name


def make_parser() -> OptionParser:
    """Build the parser. Each command sets `command`, the name of its module in `training.commands`."""
    parser = OptionParser(
        prog="python -m training",
        description="Train and evaluate the network of the service. Research only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"covid-ct {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_report(commands)
    _add_evaluate(commands)
    _add_calibrate(commands)
    _add_slices(commands)
    _add_draw_sources(commands)
    return parser


def _add_command(commands: Commands, name: str, summary: str, description: str) -> OptionParser:
    """Add a command with its line in the list of commands and the text of its own help."""
    parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=name.replace("-", "_"))
    parser.add_argument("--quiet", action="store_true", help="print results, warnings and errors only")
    return parser


def _add_train(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "train",
        "train, judge on left-out sources, and export the model that ships",
        "Train the lung finder and the lesion network, judge them on left-out sources, evaluate official test once, "
        "and export into the run folder. After an interrupt, the same command resumes the run.",
    )
    add_data(parser)
    _add_sources(parser)
    parser.add_argument("--weights", type=Path, help="ImageNet weights in torchvision's layout (default: downloaded)")
    add_run(parser, "--run", "runs/lesion")
    parser.add_argument(
        "--release",
        type=Path,
        nargs="?",
        const=Path("models"),
        metavar="DIR",
        help="compare the finished model with the one in this folder (models), and replace it if the new one is better",
    )
    parser.add_argument(
        "--release-anyway", action="store_true", help="with --release: replace it even if the new model is not better"
    )
    add_recipe_fields(parser, LesionRecipe)


def _add_sources(parser: OptionParser) -> None:
    """Add the options for all sources of `train` besides COVID-CT, and for those to leave out."""
    parser.add_argument(
        "--corrections",
        type=_corrections,
        default=KNOWN_LABEL_ERRORS,
        metavar="FILE",
        help="CSV of file, split, class, problem: COVID-CT's label errors (the 14 known ones; `none` corrects nothing)",
    )
    parser.add_argument(
        "--lesions", type=Path, required=True, help="folder with slices.csv (file, source, volume) and lesion masks"
    )
    add_labelled(parser, "slices of another source")
    parser.add_argument("--clear", type=Path, required=True, help="folder of chest slices without COVID, lungs clear")
    parser.add_argument("--unseen", type=Path, help="folder of chest slices used only to measure false refusals")
    parser.add_argument(
        "--other", type=Path, help="folder of pictures that are not slices; every second one is trained on"
    )
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="SOURCE",
        help="labelled source to leave out of the judged network; repeatable (default: every other source with both "
        "classes)",
    )
    parser.add_argument(
        "--allow-copies", action="store_true", help="accept the same picture in two sources; never in the official test"
    )
    parser.add_argument(
        "--check", action="store_true", help="read every input, print the table of sources and every problem, and exit"
    )


def _corrections(text: str) -> Path | None:
    return None if text == "none" else Path(text)


def _with_absolute_path(text: str) -> str:
    """Make the path of `NETWORK=FILE` absolute, as recipe.toml needs it."""
    name, separator, path = text.partition("=")
    return f"{name}={Path(path).resolve()}" if separator else text


def _add_report(commands: Commands) -> None:
    architectures = get_args(Architecture)
    parser = _add_command(
        commands,
        "report",
        "repeat the experiment of the report: VGG-19 and VGG-16, fine-tuned on COVID-CT alone",
        "Fine-tune each network with each seed, score test once, and write report.md with the report's figures next to "
        "these. After an interrupt, the same command resumes; finished runs are not repeated.",
    )
    add_data(parser)
    parser.add_argument("--architectures", nargs="+", choices=architectures, default=architectures, help="(all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="(0)")
    parser.add_argument(
        "--weights",
        type=_with_absolute_path,
        action="append",
        default=[],
        metavar="NETWORK=FILE",
        help="ImageNet weights of one network, in torchvision's layout; repeatable (default: downloaded)",
    )
    add_run(parser, "--out", "runs/report")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that load slices (CPU: none, GPU: up to 8)")
    parser.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=5,
        metavar="N",
        help="least time between two checkpoints of 1.1 GB; 0 writes one after each epoch (5)",
    )
    add_recipe_fields(parser, ReportRecipe)


def _add_evaluate(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "evaluate",
        "score model files on labelled slices, and on COVID-CT's test split",
        "Print a table for each model file, with 95 % intervals over patients where they are known, and the number of "
        "refused slices. With two models, print the paired differences of their AUC.",
    )
    add_labelled(parser, "slices to score")
    parser.add_argument(
        "--models", type=Path, action="append", metavar="DIR", help="folder with metrics.json; repeatable (models)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every score")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every prediction")
    add_threads(parser)
    add_data(parser, required=False)


def _add_calibrate(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "calibrate",
        "fit calibration and thresholds of a model to your own labelled slices",
        "Fit the calibration and both operating points of a released model to labelled slices of a hospital, state "
        "their figures on patients left out of the fit, and write a models folder with the same network files. The "
        "service serves it like any other. Needs at least 30 slices of each class.",
    )
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of the released model (models)")
    parser.add_argument(
        "--labelled",
        type=Path,
        required=True,
        metavar="DIR",
        help="folders COVID and NonCOVID, or slices.csv of file, label, source, patient and, where known, finding",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the calibrated model")
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and intervals (0)")


def _add_slices(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "slices",
        "make the folders of train from volumes: DICOM, NIfTI, LUNA16",
        "Write slices of all volumes of a folder, upright and in the lung window, with their masks.",
    )
    parser.add_argument("folder", type=Path, help="folder of DICOM files, .nii, .nii.gz or .mhd files")
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder to write into")
    parser.add_argument(
        "--lesions",
        type=Path,
        help="folder of lesion masks, NIfTI named like the volumes (without: clear lungs)",
    )
    parser.add_argument("--lungs", type=Path, help="folder of lung masks, NIfTI named like the volumes")
    parser.add_argument("--source", default="volumes", help="name of the source in slices.csv (volumes)")
    parser.add_argument("--every", type=positive, default=8, metavar="N", help="take every N-th slice with lungs (8)")


def _add_draw_sources(commands: Commands) -> None:
    summary = "draw small sources for a first run: train --config demo"
    parser = _add_command(commands, "draw-sources", summary, summary)
    parser.add_argument("folder", type=Path, help="folder to write into, such as runs/demo-sources")
