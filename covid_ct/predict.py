"""`covid-ct predict`: one row for each slice; a failed slice does not stop the others."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from covid_ct.engines import Engine, LocalEngine, RemoteEngine
from covid_ct.errors import ClientError, ProblemError, SourceError, UsageError
from covid_ct.model_folder import find_models
from covid_ct.rows import Format, Row, Writer, printable, read_rows, writer_to
from covid_ct.sources import Found, FoundSlice, find, is_other_file, slices_of
from service import DISCLAIMER
from service.errors import ServiceError
from service.imaging.decode import Slice
from service.imaging.window import LUNG, Window


@dataclass(slots=True)
class Tally:
    """Counts of one run, and the keys of rows that need not be computed again."""

    answered: int = 0
    failed: int = 0
    skipped: int = 0
    held: int = 0
    repeated: int = 0
    windowless: int = 0
    keys: set[tuple[str, str, str, str]] = field(default_factory=set)

    @property
    def found(self) -> int:
        """Number of slices."""
        return self.answered + self.failed + self.held

    def summary(self) -> str:
        """Return the counts as one line."""
        parts = [f"{self.answered} answered", f"{self.failed} failed"]
        counts = {
            "in the output already": self.held,
            "named again": self.repeated,
            "other files passed over": self.skipped,
        }
        return ", ".join(parts + [f"{count} {what}" for what, count in counts.items() if count])


def predict(options: Namespace) -> int:
    """Predict for all slices of the options; return 0 if all were answered, 1 if some failed or none was found.

    Raises:
        ClientError: no model or service, or the output file is not of this command.
    """
    form = chosen_format(options.format, options.output)
    before = read_rows(options.output, form) if options.output and options.output.exists() else []
    engine = _engine(options)
    try:
        window: Window = options.window or LUNG
        kept = [row for row in before if not row.error]
        _check_same(kept, engine, window_mark(window))
        print(f"model {printable(engine.description)}", file=sys.stderr)
        tally = Tally(keys={row.key for row in kept})
        with writer_to(options.output, form, kept) as write:
            for found in find(options.paths):
                _answer(found, engine, window, write, tally)
                _show(tally)
    finally:
        engine.close()
    windowless = f"--window does not apply to {tally.windowless} slices without Hounsfield units"
    remark = windowless if options.window and tally.windowless else ""
    return end_run(tally, options.paths, remark)


class Counts(Protocol):
    """Counts of a run, of any engine."""

    failed: int

    @property
    def found(self) -> int:
        """Number of slices."""
        ...

    def summary(self) -> str:
        """Return the result as one line."""
        ...


def end_run(counts: Counts, paths: Sequence[str], remark: str = "") -> int:
    """Print the result; return the exit status: 1 if a slice failed or no image was found."""
    print(f"{line_start()}{counts.summary()}. {DISCLAIMER}", file=sys.stderr)
    if remark:
        print(remark, file=sys.stderr)
    if not counts.found:
        print(f"error: no image was found in {', '.join(map(printable, paths))}", file=sys.stderr)
    return 1 if counts.failed or not counts.found else 0


def chosen_format(wanted: Format | Literal["parquet"] | None, output: Path | None) -> Format:
    """Choose the format: the option, else the suffix of the output, else a table.

    Raises:
        UsageError: a table can't be written to a file, because it can't be resumed; or there is no such folder.
    """
    suffixes: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl"}
    form: Format | Literal["parquet"] | None = wanted or (suffixes.get(output.suffix.lower()) if output else "table")
    if form == "parquet":
        raise UsageError("--format parquet needs --engine ray")
    if form is None or (output and form == "table"):
        raise UsageError("--output needs --format csv or jsonl, or a name that ends in .csv or .jsonl")
    if output and output.exists() and not output.is_file():
        raise UsageError(f"--output {output} is a folder or a device; name a file")
    if output and not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.parent}; make it first")
    return form


def _engine(options: Namespace) -> Engine:
    if options.url:
        return RemoteEngine(options.url, options.api_key, options.operating_point)
    return LocalEngine(find_models(options.models), options.device, operating_point=options.operating_point)


def _check_same(kept: list[Row], engine: Engine, window: str) -> None:
    """Refuse to mix results of different models, operating points or windows in one file."""
    here = (engine.model, engine.operating_point, window)
    for row in kept:
        there = (row.model, row.operating_point, row.window or window)
        if there != here:
            words = [f"model {model}, operating point {point}, window {own}" for model, point, own in (there, here)]
            raise ClientError(
                f"the output holds answers of {words[0]}; these are of {words[1]}: choose another --output"
            )


def window_mark(window: Window | None) -> str:
    """Return the window as a row has it: centre/width, or nothing if none applies."""
    return "" if window is None else f"{window.centre:g}/{window.width:g}"


def _answer(found: Found, engine: Engine, window: Window, write: Writer, tally: Tally) -> None:
    """Write the rows of one file."""
    for row in answer(found, engine, window, tally):
        write(row)


def answer(found: Found, engine: Engine, window: Window, tally: Tally) -> Iterator[Row]:
    """Yield the rows of one file, without those that the tally has, and count them."""
    if found.repeated:
        tally.repeated += 1
        return
    for row in _rows(found, engine, window, tally):
        if row.error:
            tally.failed += 1
        else:
            tally.answered += 1
            tally.windowless += not row.window
        yield row
        if not row.error:
            tally.keys.add(row.key)


def _rows(found: Found, engine: Engine, window: Window, tally: Tally) -> Iterator[Row]:
    """Yield a row for each slice of a file; an error of one slice stops neither the next slice nor the next file."""
    base = Row(printable(found.name), found.sha256, engine.model, "")
    for each in _slices(found, base.path, window):
        row = replace(base, path=each.name, window=window_mark(each.window))
        if row.key in tally.keys:
            tally.held += 1
            continue
        error = each.image if isinstance(each.image, Exception) else None
        if not isinstance(each.image, Exception):
            try:
                row = _predicted(row, engine, each.image)
            except Exception as caught:  # noqa: BLE001 - a fault of this program in one slice does not end the run
                error = caught
        if error is None:
            yield row
        elif not found.named and _is_other(error):
            tally.skipped += 1
        else:
            yield _failed(row, error)


def _slices(found: Found, name: str, window: Window) -> Iterator[FoundSlice]:
    """Yield the slices of a file; the reason for which there are no more is the last one."""
    if isinstance(found.data, SourceError):
        yield FoundSlice(name, found.data, None)
        return
    last = name
    try:
        for each in slices_of(found.data, name, window):
            last = each.name
            yield each
    except Exception as error:  # noqa: BLE001 - as in _rows
        yield FoundSlice(last, error, None)


def _predicted(row: Row, engine: Engine, image: bytes | Slice) -> Row:
    prediction = engine.predict(image)
    involvement, check = prediction.lung_involvement, prediction.out_of_distribution
    return replace(
        row,
        probability=prediction.probability,
        label=prediction.label or "",
        threshold=prediction.threshold,
        operating_point=prediction.operating_point,
        lesion_probability=prediction.lesion_probability,
        covid_given_lesion=prediction.covid_given_lesion,
        lesion_threshold=prediction.lesion_threshold,
        lung_involvement=involvement.both if involvement else None,
        lung_involvement_left=involvement.left if involvement else None,
        lung_involvement_right=involvement.right if involvement else None,
        lung_fraction=prediction.lung_fraction,
        ood_score=check.score,
        flagged=check.flagged,
        reason=check.reason or "",
    )


def _failed(row: Row, error: Exception) -> Row:
    if isinstance(error, ServiceError | ProblemError | SourceError):
        return replace(row, error=str(error.code), detail=error.detail)
    if isinstance(error, ClientError):
        return replace(row, error="no_answer", detail=str(error))
    return replace(row, error="internal_error", detail=f"This program failed: {type(error).__name__}: {error}")


def _is_other(error: Exception) -> bool:
    return is_other_file(error) or (isinstance(error, ProblemError) and error.code == "unsupported_image_type")


def _show(tally: Tally) -> None:
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        print(f"{line_start()}{tally.summary()} ...", end="", file=sys.stderr, flush=True)


def line_start() -> str:
    """Return what clears the line of progress on a terminal."""
    return "\r\x1b[2K" if sys.stderr.isatty() else ""
