"""`covid-ct predict`: one row for each slice or series."""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from covid_ct.counts import Counts
from covid_ct.engine_options import open_engine
from covid_ct.engines import Engine
from covid_ct.errors import ClientError, UsageError
from covid_ct.rows import (
    Format,
    Row,
    SeriesRow,
    in_anatomical_order,
    printable,
    read_rows,
    window_mark,
    writer_to,
)
from covid_ct.series_rows import series_rows
from covid_ct.slice_rows import slice_rows
from service import DISCLAIMER
from service.imaging.window import LUNG, Window


def predict(options: Namespace) -> int:
    """Predict for all slices or series; return 0 if nothing failed, 1 if something did or there was nothing.

    Raises:
        ClientError: no model or service, or the output file is not of this command.
    """
    form = chosen_format(options.format, options.output)
    kind = SeriesRow if options.by_series else Row
    before = read_rows(options.output, form, kind) if options.output and options.output.exists() else []
    window: Window = options.window or LUNG
    counts, windowless = Counts(), 0
    rows = series_rows if options.by_series else slice_rows
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


def show_progress(line: str) -> None:
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        print(f"{line_start()}{line} ...", end="", file=sys.stderr, flush=True)


def line_start() -> str:
    """Return what clears the line of progress on a terminal."""
    return "\r\x1b[2K" if sys.stderr.isatty() else ""
