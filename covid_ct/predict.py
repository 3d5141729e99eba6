"""`covid-ct predict`: one row for each slice; a failed slice does not stop the others."""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from covid_ct.engine_options import open_engine
from covid_ct.engines import Engine
from covid_ct.errors import ClientError, ProblemError, SourceError, UsageError
from covid_ct.files.slices import SourceSlice, slices_of
from covid_ct.files.sources import SourceFile, list_sources, read_sources
from covid_ct.rows import (
    Format,
    Row,
    RowKey,
    SeriesRow,
    in_anatomical_order,
    printable,
    read_rows,
    with_answer,
    writer_to,
)
from service import DISCLAIMER
from service.errors import ServiceError
from service.imaging.series.files import COMPANIONS, StudySlice
from service.imaging.window import LUNG, Window

AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(slots=True)
class Counts:
    """Numbers of one run.

    Attributes:
        answered, failed: slices of this run.
        without_lungs: slices of a series, above and below the lungs; no failures.
        kept: rows of previous runs.
        skipped: files in folders and zips that are not slices.
    """

    answered: int = 0
    failed: int = 0
    without_lungs: int = 0
    kept: int = 0
    skipped: int = 0

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.answered + self.failed + self.without_lungs + self.kept

    def summary(self) -> str:
        """Return the result as one line."""
        parts = [f"{self.answered} predicted", f"{self.failed} failed"]
        parts += [f"{self.without_lungs} without lungs"] if self.without_lungs else []
        parts += [f"{self.kept} in the output already"] if self.kept else []
        parts += [f"{self.skipped} other files skipped"] if self.skipped else []
        return ", ".join(parts)


def predict(options: Namespace) -> int:
    """Predict for all slices or series; return 0 if nothing failed, 1 if something did or there was nothing.

    Raises:
        ClientError: no model or service, or the output file is not of this command.
    """
    from covid_ct.series_rows import series_rows

    form = chosen_format(options.format, options.output)
    kind = SeriesRow if options.by_series else Row
    before = read_rows(options.output, form, kind) if options.output and options.output.exists() else []
    window: Window = options.window or LUNG
    counts, windowless = Counts(), 0
    rows = series_rows if options.by_series else _slice_rows
    with open_engine(options) as engine:
        kept = _finished(before)
        _check_same(kept, engine, window_mark(window))
        print(f"model {printable(engine.description)}", file=sys.stderr)
        done = Counter(row.key for row in kept)
        with writer_to(options.output, form, kept, kind) as write:
            for row in rows(options.paths, engine, window, counts, done):
                write(row)
                windowless += not row.window and not row.error
                show_progress(counts.summary())
    if options.output:
        _order(options.output, form, kind)
    remark = f"--window does not apply to {windowless} slices without Hounsfield units"
    return end_run(counts, options.paths, remark if options.window and windowless else "")


def _finished(rows: Sequence[Row]) -> list[Row]:
    """Leave out the rows of files and studies that are tried again."""
    again = {row.path for row in rows if not row.is_final}
    return [row for row in rows if row.path not in again]


def _order(output: Path, form: Format, kind: type[Row]) -> None:
    """Write the rows of a finished output in anatomical order."""
    rows = read_rows(output, form, kind)
    in_order = in_anatomical_order(rows, lambda row: row)
    if in_order != rows:
        with writer_to(output, form, in_order, kind):
            pass


def _slice_rows(
    paths: Sequence[str], engine: Engine, window: Window, counts: Counts, done: Counter[RowKey]
) -> Iterator[Row]:
    for _, files in read_sources(list_sources(paths)):
        yield from rows_of(files, engine, window, counts, done)


def end_run(counts: Counts, paths: Sequence[str], remark: str = "") -> int:
    """Print the result; return the exit status: 1 if a slice failed or no image was found."""
    print(f"{line_start()}{counts.summary()}. {DISCLAIMER}", file=sys.stderr)
    if remark:
        print(remark, file=sys.stderr)
    if not counts.slices:
        print(f"error: no image was found in {', '.join(map(printable, paths))}", file=sys.stderr)
    return 1 if counts.failed or not counts.slices else 0


def chosen_format(wanted: Format | Literal["parquet"] | None, output: Path | None) -> Format:
    """Choose the format: the option, else the suffix of the output, else a table.

    Raises:
        UsageError: a table can't be written to a file, because it can't be resumed; or there is no such folder.
    """
    suffixes: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl"}
    form: Format | Literal["parquet"] | None = wanted or (suffixes.get(output.suffix.lower()) if output else "table")
    if form == "parquet" or (wanted is None and output and output.suffix.lower() == ".parquet"):
        raise UsageError("parquet needs --engine ray, with --output DIR")
    if form is None or (output and form == "table"):
        raise UsageError("--output needs --format csv or jsonl, or a name that ends in .csv or .jsonl")
    if output and output.exists() and not output.is_file():
        raise UsageError(f"--output {output} is a folder or a device; name a file")
    if output and not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.parent}; make it first")
    return form


def _check_same(kept: list[Row], engine: Engine, window: str) -> None:
    """Refuse to mix results of different models, operating points or windows in one file."""
    here = (engine.model, engine.operating_point, window)
    for row in kept:
        there = (row.model, row.operating_point or engine.operating_point, row.window or window)
        if there != here:
            words = [f"model {model}, operating point {point}, window {mark}" for model, point, mark in (there, here)]
            raise ClientError(
                f"the output has predictions of {words[0]}, and these would be of {words[1]}: choose another --output"
            )


def window_mark(window: Window | None) -> str:
    """Return the window as a row has it: centre/width, or nothing if none applies."""
    return "" if window is None else f"{window.centre:g}/{window.width:g}"


def rows_of(
    files: Iterable[SourceFile], engine: Engine, window: Window, counts: Counts, done: Counter[RowKey]
) -> Iterator[Row]:
    """Yield a row for each slice of some files that is not done, and count; an error of one stops no other.

    Args:
        files: read one at a time.
        engine: predicts.
        window: for Hounsfield units.
        counts: of the run; increased.
        done: keys of the rows that need not be computed again; the new ones are added.
    """
    for file in files:
        base = Row(printable(file.name), file.sha256, engine.model)
        for slice_ in _slices(file, base.path, engine, window):
            row = _placed(replace(base, path=slice_.name, window=window_mark(slice_.window)), slice_.read)
            if row.key in done:
                counts.kept += 1
                continue
            row = _predicted(row, engine, slice_)
            if row.error in COMPANIONS and not file.named:
                counts.skipped += 1
                continue
            if row.is_without_lungs and (not file.named or slice_.name != base.path):
                row = replace(row, detail="The slice shows no lungs.")
                counts.without_lungs += 1
                done[row.key] += 1
            elif row.error:
                counts.failed += 1
            else:
                counts.answered += 1
                done[row.key] += 1
            yield row


def _slices(file: SourceFile, name: str, engine: Engine, window: Window) -> Iterator[SourceSlice]:
    """Yield the slices of a file; if reading fails, the last item is the error."""
    if not isinstance(file.data, bytes):
        yield SourceSlice(name, error=file.data)
        return
    last = name
    try:
        for slice_ in slices_of(file.data, name, engine.decoders, engine.read_options(window), named=file.named):
            last = slice_.name
            yield slice_
    except Exception as error:  # noqa: BLE001 - as in _predicted
        yield SourceSlice(last, error=error)


def _placed(row: Row, read: StudySlice | None) -> Row:
    """Complete a row with the place of a slice."""
    if read is None:
        return row
    place = read.place
    position = None if place.plane is None else round(place.plane.offset, 3)
    if place.source is None:
        return replace(row, position_mm=position)
    study, series = place.series
    return replace(row, study=study, series=series, instance=place.source.sop_instance_uid, position_mm=position)


def _predicted(row: Row, engine: Engine, slice_: SourceSlice) -> Row:
    """Complete a row with the prediction or the error."""
    if slice_.error is not None:
        return failed_row(row, slice_.error)
    try:
        prediction = engine.predict(slice_)
    except Exception as error:  # noqa: BLE001 - a fault of this program in one slice does not end the run
        return failed_row(row, error)
    check = prediction.out_of_distribution
    return replace(
        with_answer(row, prediction),
        lesion_threshold=prediction.lesion_threshold,
        lung_fraction=prediction.lung_fraction,
        ood_score=check.score,
        flagged=check.flagged,
        reason=check.reason or "",
    )


def failed_row(row: AnyRow, error: Exception) -> AnyRow:
    """Complete a row with an error."""
    if isinstance(error, ServiceError | ProblemError | SourceError):
        return replace(row, error=str(error.code), detail=error.detail)
    if isinstance(error, ClientError):
        return replace(row, error="no_answer", detail=str(error))
    return replace(row, error="internal_error", detail=f"This program failed: {type(error).__name__}: {error}")


def show_progress(line: str) -> None:
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        print(f"{line_start()}{line} ...", end="", file=sys.stderr, flush=True)


def line_start() -> str:
    """Return what clears the line of progress on a terminal."""
    return "\r\x1b[2K" if sys.stderr.isatty() else ""
