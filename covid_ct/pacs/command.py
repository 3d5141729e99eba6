"""The command `covid-ct pacs`: its options, and its run."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from covid_ct.engine_options import add_local_options, add_service_options, api_key, check_engine_options

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from covid_ct.pacs.predictor import SeriesPredictor

EPILOG: Final = """\
A series is done when the PACS holds a report (DICOM SR) of this software that refers to it. Nothing else is kept, so
the command may be stopped at any moment, and two may run. It reads CT series with a BodyPartExamined of the chest, or
with none.

examples:
  covid-ct pacs http://127.0.0.1:8042/dicom-web                               until stopped, with the local model
  covid-ct pacs http://127.0.0.1:8042/dicom-web --url http://127.0.0.1:8000   with a service
  covid-ct pacs https://pacs.example.org/dicom-web --once --again             also where another version has reported

Authorization: COVIDCT_PACS_AUTHORIZATION, such as "Bearer ...", is sent to the PACS as the header of this name.

exit status with --once: 0 no series failed, 1 some failed, 2 wrong usage, 130 interrupted.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.set_defaults(command=run)
    parser.add_argument("pacs", metavar="PACS", help="address of its DICOMweb services")
    looks = parser.add_mutually_exclusive_group()
    looks.add_argument("--once", action="store_true", help="process the series that are there, and end")
    looks.add_argument("--every", type=_seconds, default=30.0, metavar="SECONDS", help="between two queries (30)")
    parser.add_argument(
        "--settle",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="a series is complete when it got no image for this time (10)",
    )
    parser.add_argument(
        "--again", action="store_true", help="also process series whose reports are by other versions of the model"
    )
    parser.add_argument(
        "--heartbeat", type=Path, metavar="FILE", help="file to touch at each query and series, for a health check"
    )
    add_local_options(parser)
    add_service_options(parser)


def run(options: argparse.Namespace) -> int:
    """Work on a PACS."""
    from covid_ct.pacs.server import Pacs
    from covid_ct.pacs.worker import Worker

    check_engine_options(options)
    authorization = os.environ.get("COVIDCT_PACS_AUTHORIZATION")
    with Pacs(options.pacs, authorization) as pacs, _open_predictor(options) as predictor:
        beat = options.heartbeat.touch if options.heartbeat else lambda: None
        worker = Worker(pacs, predictor, again=options.again, settle=options.settle, beat=beat)
        if not options.once:
            worker.forever(options.every)
        worker.once()
        return 1 if worker.failed else 0


def _open_predictor(options: argparse.Namespace) -> "AbstractContextManager[SeriesPredictor]":
    from covid_ct.pacs.predictor import local_predictor, remote_predictor

    if not options.url:
        return local_predictor(options.models, options.device, options.operating_point)
    return remote_predictor(options.url, api_key(options), options.operating_point)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError
    return seconds
