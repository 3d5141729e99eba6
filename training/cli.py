"""Commands of `python -m training` and their options. Imports no torch, which takes seconds, before a command runs."""

import argparse
from pathlib import Path
from typing import get_args

from service import __version__
from training import lesion_recipe, report_recipe
from training.data.label_errors import KNOWN_LABEL_ERRORS
from training.options import Parser, add_data, add_recipe_fields, add_run, positive


def make_parser() -> Parser:
    """Build the parser; each command sets `command`, a function of the parsed options."""
    parser = Parser(
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


def _add_train(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "train",
        help="train, judge on left-out sources, and export the model that ships",
        description="Train the lung finder and the lesion network, judge them on sources that they never saw, evaluate "
        "official test once, and export into the run folder. After an interrupt, the same command resumes the run.",
    )
    parser.set_defaults(command=_train)
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
        help="compare the finished model with the one in this folder (models), and replace it if it is better",
    )
    parser.add_argument(
        "--release-anyway", action="store_true", help="with --release: replace it although the new model is no better"
    )
    parser.add_argument(
        "--export-anyway", action="store_true", help="write model files although the network learned nothing"
    )
    add_recipe_fields(parser, lesion_recipe.LesionRecipe, lesion_recipe.NO_OPTIONS)


def _add_sources(parser: Parser) -> None:
    """Add the options for everything that `train` learns from besides COVID-CT, and for what it leaves out."""
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
        "--other", type=Path, help="folder of pictures that are not slices; every second one is trained on"
    )
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="SOURCE",
        help="labelled source that the judged network never sees; repeatable (default: every other source with both "
        "classes)",
    )
    parser.add_argument(
        "--allow-copies", action="store_true", help="accept the same picture in two sources; never in official test"
    )
    parser.add_argument(
        "--check", action="store_true", help="read every input, print the table of sources and every problem, and end"
    )


def _corrections(text: str) -> Path | None:
    return None if text == "none" else Path(text)


def _add_report(commands: "argparse._SubParsersAction[Parser]") -> None:
    architectures = get_args(report_recipe.Architecture)
    parser = commands.add_parser(
        "report",
        help="repeat the experiment of the report: VGG-19 and VGG-16, fine-tuned on COVID-CT alone",
        description="Fine-tune each network with each seed, score test once, and write report.md with the report's "
        "figures next to these. After an interrupt, the same command resumes; finished runs are not repeated.",
    )
    parser.set_defaults(command=_report)
    add_data(parser)
    parser.add_argument("--architectures", nargs="+", choices=architectures, default=architectures, help="(all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="(0)")
    parser.add_argument(
        "--weights",
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
        help="least time between two checkpoints of 1.1 GB; 0 writes one each epoch (5)",
    )
    add_recipe_fields(parser, report_recipe.ReportRecipe, report_recipe.NO_OPTIONS)


def _add_evaluate(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score model files on labelled slices, and on COVID-CT's test split",
        description="Print a table for each model file, with 95 % intervals over patients where they are known, and "
        "the number of slices that the checks refuse. With two models, print the paired differences of their AUC.",
    )
    parser.set_defaults(command=_evaluate)
    parser.add_argument(
        "--labelled",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="slices to score: slices.csv (file, label, source, patient), or folders COVID and NonCOVID; repeatable",
    )
    parser.add_argument(
        "--models", type=Path, action="append", metavar="DIR", help="folder with metrics.json; repeatable (models)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every score")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every answer")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads that compute (one for each processor)")
    add_data(parser, required=False)


def _add_calibrate(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "calibrate",
        help="fit calibration and thresholds of a model to labelled slices of one's own",
        description="Fit the calibration and both operating points of a released model to labelled slices of a "
        "hospital, state their figures on patients that had no part in the fit, and write a models folder with the "
        "same network files, which the service serves like any other. At least 30 slices of each class.",
    )
    parser.set_defaults(command=_calibrate)
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
    parser.add_argument("--quiet", action="store_true", help="print results, warnings and errors only")


def _add_draw_sources(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser("draw-sources", help="draw small sources for a first run: train --config demo")
    parser.set_defaults(command=_draw_sources)
    parser.add_argument("folder", type=Path, help="folder to write into, such as runs/demo-sources")
    parser.add_argument("--quiet", action="store_true", help="print warnings and errors only")


def _add_slices(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "slices",
        help="make the folders of train from volumes: DICOM, NIfTI, LUNA16",
        description="Write slices of all volumes of a folder, upright and in the lung window, with their masks.",
    )
    parser.set_defaults(command=_slices)
    parser.add_argument("folder", type=Path, help="folder of DICOM files, .nii, .nii.gz or .mhd files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--lesions", type=Path, help="folder of lesion masks: VOLUME.nii.gz (without: clear lungs)")
    parser.add_argument("--lungs", type=Path, help="folder of lung masks: VOLUME.nii.gz")
    parser.add_argument("--source", default="volumes", help="name of the source in slices.csv (volumes)")
    parser.add_argument("--every", type=positive, default=8, metavar="N", help="take every N-th slice with lungs (8)")
    parser.add_argument("--quiet", action="store_true", help="print results, warnings and errors only")


def _slices(options: argparse.Namespace) -> None:
    from training.slices_cli import write_slices

    write_slices(options)


def _draw_sources(options: argparse.Namespace) -> None:
    from training.demo_cli import draw_sources

    draw_sources(options)


def _train(options: argparse.Namespace) -> None:
    from training.lesion_cli import train

    train(options)


def _report(options: argparse.Namespace) -> None:
    from training.report_cli import report

    report(options)


def _evaluate(options: argparse.Namespace) -> None:
    from training.evaluate_cli import evaluate

    evaluate(options)


def _calibrate(options: argparse.Namespace) -> None:
    from training.calibrate_cli import calibrate

    calibrate(options)
