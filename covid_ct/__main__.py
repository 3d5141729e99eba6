"""`covid-ct`: study, predict, pacs, model show."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from covid_ct.engine_options import add_local_options, add_service_options
from covid_ct.errors import ClientError, UsageError
from covid_ct.http import LOCAL
from covid_ct.rows import printable
from service import DISCLAIMER, __version__

_EPILOG: Final = f"""\
examples:
  covid-ct study study/                            one result for a CT series
  covid-ct predict slice.png                       one slice, with the model of this installation
  covid-ct predict study/ --output result.csv      a folder; run the same command again to continue
  covid-ct pacs http://127.0.0.1:8042/dicom-web    chest CT series of a PACS get their results there
  covid-ct model show                              the model and its test results

{DISCLAIMER}
"""

_PREDICT_EPILOG: Final = f"""\
A PATH is a file (PNG, JPEG, WebP, TIFF, BMP, GIF, DICOM, NIfTI), a folder (read with all below it), a quoted glob, a
zip of any of these, or - for standard input. The slices of a multi-frame DICOM or NIfTI file are numbered #0, #1, ...

examples:
  covid-ct predict a.png b.dcm
  covid-ct predict study/ --output study.csv       run it again to continue, or to retry failed slices
  covid-ct predict 'scans/**/*.dcm' --format jsonl
  covid-ct predict series.zip --window -600 1500   black at -1350 HU, white at 150 HU
  covid-ct predict ct.nii.gz                       every axial slice
  covid-ct predict study/ --operating-point screening
  covid-ct predict 'studies/*' --by-series --output series.csv    a row for each series
  covid-ct predict archive/ --engine ray --output rows/    a cluster; needs the extra ray
  covid-ct predict study/ --url {LOCAL}   ask a service; a key comes from COVIDCT_API_KEY

exit status: 0 all answered, 1 some failed (or no image, model or service), 2 wrong usage, 130 interrupted.
"""


_STUDY_EPILOG: Final = f"""\
Slices are grouped into series and ordered by their positions. Scouts, reports and other files that a study has next to
its slices are skipped with their reason, and slices above and below the lungs are no failures.

examples:
  covid-ct study study/
  covid-ct study ct.zip --json > study.json
  covid-ct study ct.nii.gz --dicom results/        masks as NIfTI; SEG and SR for DICOM
  covid-ct study study/ --url {LOCAL}

exit status: 0 all read, 1 a file failed (or no series, model or service), 2 wrong usage, 130 interrupted.
"""


_NEEDS_TORCH: Final = (
    "a model on this machine needs PyTorch: in a clone, pip install '.[model]'; or name a service with --url"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Errors that the user can fix are one line on stderr."""
    _prepare_streams()
    try:
        options = _parser().parse_args(arguments)
        if sys.stdout is None and not getattr(options, "output", None):
            raise UsageError("standard output is closed; open it, or name a file if the command has --output")
        status = int(options.command(options))
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted; with --output, run the same command again to continue", file=sys.stderr)
        return 130
    except (ClientError, OSError, ModuleNotFoundError) as error:
        return _report(error)
    return status


def _prepare_streams() -> None:
    """Escape what the streams can't encode; a closed input is empty, and a closed error stream goes into no file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes this number, which the next file would get otherwise
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open()  # noqa: SIM115 - as below
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _report(error: Exception) -> int:
    """Print an error as one line, and return the exit status."""
    if isinstance(error, ModuleNotFoundError):
        if error.name != "torch":
            raise error
        error = ClientError(_NEEDS_TORCH)
    _drop_stdout_if_broken()
    if not isinstance(error, BrokenPipeError):
        print(f"error: {printable(str(error))}", file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1


def _drop_stdout_if_broken() -> None:
    """Send the rest of an output that can't be written nowhere, so that closing it does not fail again."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _predict(options: argparse.Namespace) -> int:
    from covid_ct.archive import command as ray
    from covid_ct.predict import predict
    from service.imaging.window import Window

    try:
        options.window = Window(*options.window) if options.window else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    return ray.run(options) if options.engine == "ray" else predict(options)


def _study(options: argparse.Namespace) -> int:
    from covid_ct.study import study

    return study(options)


def _show_model(options: argparse.Namespace) -> int:
    from covid_ct.models import show_model

    return show_model(options)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="covid-ct",
        description="The probability of COVID-19 in chest CT slices.",
        epilog=_EPILOG,
        formatter_class=raw,
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__} (the model has its own version)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_study(commands)
    _add_predict(commands)
    _add_pacs(commands)
    model = commands.add_parser("model", help="show the model of a models folder")
    (actions := model.add_subparsers(required=True, metavar="ACTION"))
    show = actions.add_parser("show", help="show its card, hash and test results")
    add_local_options(show)
    show.add_argument("--json", action="store_true", help="print the whole card as JSON")
    show.set_defaults(command=_show_model)
    return parser


def _add_study(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "study",
        help="one result for a CT series",
        description="Print one result for each series of a study: probability, involvement, volumes.",
        epilog=_STUDY_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_study)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folder, zip, NIfTI or DICOM files of one study")
    add_local_options(parser)
    add_service_options(parser)
    parser.add_argument("--json", action="store_true", help="print the whole result, with every slice")
    parser.add_argument("--uids", action="store_true", help="with UIDs and names of files, which may name the patient")
    parser.add_argument(
        "--dicom",
        type=Path,
        metavar="DIR",
        help="write DICOM SEG and SR, or NIfTI masks, and key slices to this folder",
    )
    parser.add_argument(
        "--every-mm", type=float, metavar="MM", help="distance between slices that are read; 0: every slice (5 if thin)"
    )


def _add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "predict",
        help="predict for files, folders, globs and zips",
        description="Write one row for each slice: its probability, or the reason for a failure.",
        epilog=_PREDICT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_predict)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder, quoted glob or zip")
    add_local_options(parser)
    add_service_options(parser)
    parser.add_argument(
        "--format",
        choices=("table", "csv", "jsonl", "parquet"),
        help="output format (default: table, or the suffix of --output); parquet needs --engine ray",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write to this file; rows that it already has are kept"
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: all machines of a Ray cluster (local)"
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="of the cluster (RAY_ADDRESS, else this machine alone)"
    )
    parser.add_argument(
        "--by-series", action="store_true", help="one row for each series; each PATH or match of a glob is a study"
    )
    parser.add_argument(
        "--window", nargs=2, type=float, metavar=("CENTRE", "WIDTH"), help="Hounsfield units (-600 1500: lung)"
    )


def _add_pacs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from covid_ct.pacs import command

    parser = commands.add_parser(
        "pacs",
        help="predict for the chest CT series of a PACS",
        description="Predict for the chest CT series of a DICOMweb server, and store segmentation and report there.",
        epilog=command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_options(parser)


if __name__ == "__main__":
    sys.exit(main())
