"""`covid-ct study`: one answer for each series of a study."""

import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from covid_ct.errors import ClientError, SourceError, UsageError
from covid_ct.http import Client
from covid_ct.model_folder import find_models
from covid_ct.predict import line_start
from covid_ct.rows import printable
from covid_ct.study_files import study_files
from service import DISCLAIMER
from service.api_study import SeriesAnswer, StudyAnswer, StudyProgress
from service.errors import MalformedRequestError, ModelFileError, ServiceError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import DecodeLimits
from service.imaging.series.archives import ArchiveLimits, Member, is_zip, read_zip
from service.imaging.series.files import ReadOptions, StudySlice
from service.model.study import FoundSlice, NotASlice, Study, plan_study

if TYPE_CHECKING:
    from service.model.predictor import Predictor

Report: TypeAlias = Callable[[StudyProgress], object]
"""Called after each slice."""


def study(options: Namespace) -> int:
    """Answer a study; return 0 if every file was read or is a usual companion of slices, 1 if one failed.

    Raises:
        ClientError: no model or service, no file, or no series.
    """
    files = study_files(options.paths)
    answer = _remote(options, files) if options.url else _local(options, files)
    print(line_start(), end="", file=sys.stderr)
    shown = answer if options.uids else answer.without_identifiers()
    print(shown.model_dump_json(indent=1) if options.json else "\n".join(_lines(answer)))
    print(DISCLAIMER, file=sys.stderr)
    for other in answer.failed:
        print(f"failed: {printable(_path(other.name, files))}: {other.detail} ({other.reason})", file=sys.stderr)
    return 1 if answer.failed or any(series.slices_failed for series in answer.series) else 0


def _path(name: str | None, files: list[Path]) -> str:
    """Return the path of a file that was sent under its number, or the name of a member of a zip."""
    return str(files[int(name)]) if name and name.isdecimal() and int(name) < len(files) else name or "a file"


def _remote(options: Namespace, files: list[Path]) -> StudyAnswer:
    with Client(options.url, api_key=options.api_key) as client:
        return client.predict_study(
            files,
            operating_point=options.operating_point,
            every_mm=options.every_mm,
            uids=True,
            report=_show,
        )


def _local(options: Namespace, files: list[Path]) -> StudyAnswer:
    from service.model.loading import LoadOptions, load_predictor

    try:
        predictor = load_predictor(LoadOptions(find_models(options.models), device=options.device))
    except ModelFileError as error:
        raise ClientError(str(error)) from error
    try:
        point = predictor.card.operating_point(options.operating_point)
        found = read_study(files, predictor, options.every_mm, keep_sources=options.dicom is not None)
        answer_slices(found, predictor, _show)
        if options.dicom is not None:
            _write_results(found, predictor, options)
        return StudyAnswer.of(found, predictor.card, point, uids=True)
    except MalformedRequestError as error:
        raise UsageError(error.detail) from error
    finally:
        predictor.close()


def read_study(
    files: Iterable[Path], predictor: "Predictor", every_mm: float | None = None, *, keep_sources: bool = False
) -> Study:
    """Read the files of a study in this process, one at a time, and plan its series.

    Args:
        files: DICOM, NIfTI, pictures and zips of them.
        predictor: that will read the slices.
        every_mm: as in `plan_study`.
        keep_sources: whether to keep pictures and headers for the result files.

    Raises:
        SourceError: no file has a slice.
    """
    options = ReadOptions(
        predictor.card.input_size, DecodeLimits(), keep_pictures=keep_sources, keep_headers=keep_sources
    )
    found: list[FoundSlice] = []
    others: list[NotASlice] = []
    with BlockingCage() as decoders:
        for index, member in enumerate(_members(files)):
            for slice_ in _slices(member, decoders, options):
                if isinstance(slice_, StudySlice):
                    found.append(FoundSlice(index, member.name, slice_))
                else:
                    others.append(NotASlice(index, member.name, slice_))
    if not found:
        raise SourceError("no_slices", "No file of the study is an axial CT slice.")
    return plan_study(found, others, every_mm)


def _slices(member: Member, decoders: BlockingCage, options: ReadOptions) -> Iterator[StudySlice | ServiceError]:
    """Yield the slices of a file; the reason for which there are no more is the last item."""
    if isinstance(member.data, ServiceError):
        yield member.data
        return
    try:
        yield from decoders.study_slices(member.data, member.name, options)
    except ServiceError as error:
        yield error


def answer_slices(study: Study, predictor: "Predictor", report: Report = lambda _: None) -> None:
    """Let the model read the wanted slices of a study, one after the other."""
    from service.model.assess import refusal, run_checks

    wanted, began = list(study.to_read()), time.monotonic()
    for done, (series, index) in enumerate(wanted):
        seconds = (time.monotonic() - began) / done * (len(wanted) - done) if done else None
        report(StudyProgress(done=done, of=len(wanted), seconds_left=seconds))
        slice_, look_first = series.slices[index], series.is_beyond_lungs(index)
        batch = [slice_.found.read.network_input]
        (answer,) = predictor.submit(lambda: predictor.predict_now(batch, 1, [look_first])).result()  # noqa: B023
        if isinstance(answer, ServiceError):
            slice_.answer = answer
        elif isinstance(answer, Exception):
            raise answer
        else:
            reason = run_checks(answer.check_scores, predictor.card.checks).reason
            slice_.answer = answer if reason is None else refusal(reason)


def _members(files: Iterable[Path]) -> Iterator[Member]:
    for path in files:
        try:
            with path.open("rb") as file:
                start = file.read(4)
                file.seek(0)
                if is_zip(start):
                    for member in read_zip(file, ArchiveLimits()):
                        yield Member(f"{path}!{member.name}", member.data)
                else:
                    yield Member(str(path), file.read())
        except OSError as error:
            raise SourceError("unreadable_file", f"{path}: can't be read: {error.strerror}") from error
        except ServiceError as error:
            raise SourceError(error.code, f"{path}: {error.detail}") from error


def _write_results(study: Study, predictor: "Predictor", options: Namespace) -> None:
    """Write the result files of each series into a folder."""
    from service.study_results import key_pictures, series_results

    card = predictor.card
    for index, read in enumerate(study.series):
        found = read.assess(card, card.operating_point(options.operating_point))
        if found is None:
            continue
        results = series_results(read, found, card, predictor.sha256)
        for name, data in (*key_pictures(read, found), *results.content.items()):
            write_file(options.dicom / f"series-{index}" / name, data)
        for sentence in results.missing:
            print(f"series {index}: {sentence}", file=sys.stderr)


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
        yield "answer        none: no slice shows lungs"
        return
    point = f"{series.operating_point} {series.threshold:g}"
    yield f"answer        {series.label}, probability {series.probability:.3f} ({point})"
    if series.lung_involvement is not None:
        both, left, right = (
            f"{100 * share:.1f} %"
            for share in (series.lung_involvement.both, series.lung_involvement.left, series.lung_involvement.right)
        )
        yield f"involvement   {both} (left {left}, right {right}), {series.severity}"
    if series.lung_volume_ml is not None and series.lesion_volume_ml is not None:
        yield f"volume        lungs {series.lung_volume_ml:.0f} ml, lesions {series.lesion_volume_ml:.0f} ml"
    yield f"key slices    {', '.join(map(str, series.key_slices))} of 0 to {len(series.slices) - 1}, from the feet"


def _show(progress: StudyProgress) -> None:
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
        print(f"{line_start()}{progress.done} of {progress.of} slices{left}", end="", file=sys.stderr, flush=True)
