"""`covid-ct study`: one result for each series of a study."""

import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from covid_ct.engine_options import open_engine
from covid_ct.engines import StudyRequest
from covid_ct.errors import ClientError
from covid_ct.files.sources import study_sources
from covid_ct.predict import line_start
from covid_ct.rows import printable
from service import DISCLAIMER
from service.api_study import SeriesAnswer, StudyAnswer, StudyProgress
from service.dicom_out import MISSING
from service.errors import ServiceError


def study(options: Namespace) -> int:
    """Predict for a study; return 0 if every file was read or is a usual companion of slices, 1 if one failed.

    Raises:
        ClientError: no model or service, no file, or no series with lungs.
    """
    request = StudyRequest(study_sources(options.paths), options.every_mm, with_files=options.dicom is not None)
    with open_engine(options) as engine:
        print(f"model {printable(engine.description)}", file=sys.stderr)
        try:
            results = engine.predict_study(request, _show)
        except ServiceError as error:
            raise ClientError(f"{error.detail} ({error.code})") from error
    answer = results.answer
    print(line_start(), end="", file=sys.stderr)
    shown = answer if options.uids else answer.without_identifiers()
    print(json.dumps(shown.model_dump(mode="json"), indent=1) if options.json else _text(answer))  # ASCII
    for name, data in results.files.items():
        write_file(options.dicom / name, data)
        if name.endswith(MISSING):
            print(printable(f"{name.removesuffix(MISSING)}: {data.decode(errors='replace')}"), file=sys.stderr)
    print(DISCLAIMER, file=sys.stderr)
    for other in answer.failed:
        print(printable(f"failed: {other.name or 'a file'}: {other.detail} ({other.reason})"), file=sys.stderr)
    return 1 if answer.failed or any(series.slices_failed for series in answer.series) else 0


def write_file(path: Path, data: bytes) -> None:
    """Write a result file and the folders above it.

    Raises:
        ClientError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ClientError(f"{path}: can't be written: {error.strerror}") from error


def _text(answer: StudyAnswer) -> str:
    return "\n".join(map(printable, _lines(answer)))


def _lines(answer: StudyAnswer) -> Iterator[str]:
    """Yield the answer for people."""
    for series in answer.series:
        yield from _series_lines(series)
    if answer.skipped:
        counts = Counter(other.reason for other in answer.skipped)
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        yield f"skipped       {reasons}"


def _series_lines(series: SeriesAnswer) -> Iterator[str]:
    spacing = "" if series.spacing_mm is None else f", {series.spacing_mm:.2f} mm apart"
    counts = {
        "read": series.slices_read,
        "without lungs": series.slices_without_lungs,
        "between those read": series.slices_not_read,
        "failed": series.slices_failed,
    }
    shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    size = f"{len(series.slices)} slices of {series.columns} x {series.rows}{spacing}"
    yield f"series {series.index}      {size}: {shown}"
    for warning in series.warnings:
        yield f"warning       {warning.detail}"
    if series.probability is None:
        yield "result        none: no slice shows lungs"
        return
    point = f"{series.operating_point} {series.threshold:g}"
    yield f"result        {series.label}, probability {series.probability:.3f} ({point})"
    if series.lung_involvement is not None:
        both, left, right = (
            f"{100 * share:.1f} %"
            for share in (series.lung_involvement.both, series.lung_involvement.left, series.lung_involvement.right)
        )
        yield f"involvement   {both} (left {left}, right {right}), {series.severity}"
    if series.lung_volume_ml is not None and series.lesion_volume_ml is not None:
        yield f"volume        lungs {series.lung_volume_ml:.0f} ml, lesions {series.lesion_volume_ml:.0f} ml"
    order = "in the order of names" if series.spacing_mm is None else "from the feet"
    yield f"key slices    {', '.join(map(str, series.key_slices))} of 0 to {len(series.slices) - 1}, {order}"


def _show(progress: StudyProgress) -> None:
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
        print(f"{line_start()}{progress.done} of {progress.of} slices{left}", end="", file=sys.stderr, flush=True)
