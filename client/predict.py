"""`covid-ct predict`: one row for each slice; a failed slice does not stop the others."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.engines import Engine, LocalEngine, RemoteEngine
from client.errors import ClientError, ProblemError
from client.results import NOTICE
from client.rows import Format, Row, Writer, begin_stdout, printable, read_rows, writer_to
from client.sources import Found, SourceError, find, is_other_file, slices_of
from service.errors import ServiceError
from service.imaging.window import Window


@dataclass(slots=True)
class Tally:
    """Counts of one run, and the keys of rows that need not be computed again."""

    answered: int = 0
    failed: int = 0
    skipped: int = 0
    held: int = 0
    keys: set[tuple[str, str, str, str]] = field(default_factory=set)

    def summary(self) -> str:
        """Return the counts as one line."""
        parts = [f"{self.answered} answered", f"{self.failed} failed"]
        if self.held:
            parts.append(f"{self.held} in the output already")
        if self.skipped:
            parts.append(f"{self.skipped} other files passed over")
        return ", ".join(parts)


def predict(options: Namespace) -> int:
    """Predict for all slices of the options; return 0 if all were answered, 1 if some failed.

    Raises:
        ClientError: no model or service, or the output file is not of this command.
    """
    form = chosen_format(options.format, options.output)
    before = read_rows(options.output, form) if options.output and options.output.exists() else []
    engine: Engine = RemoteEngine(options.url, options.api_key) if options.url else _local(options)
    try:
        window: Window = options.window
        mark = window_mark(window)
        kept = [row for row in before if not row.error]
        _check_same(kept, engine.model, mark)
        tally = Tally(keys={row.key for row in kept})
        if options.output is None:
            begin_stdout(form)
        with writer_to(options.output, form, kept) as write:
            for found in find(options.paths):
                _answer(found, engine, window, write, tally)
                _show(tally)
    finally:
        engine.close()
    print(f"{_line_start()}{tally.summary()}. {NOTICE}", file=sys.stderr)
    return 1 if tally.failed else 0


def chosen_format(wanted: Format | None, output: Path | None) -> Format:
    """Choose the format: the option, else the suffix of the output, else a table.

    Raises:
        ClientError: a table can't be written to a file, because it can't be resumed.
    """
    suffixes: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl"}
    form = wanted or (suffixes.get(output.suffix.lower()) if output else "table")
    if form is None or (output and form == "table"):
        raise ClientError("--output needs --format csv or jsonl, or a name that ends in .csv or .jsonl")
    return form


def _check_same(kept: list[Row], model: str, window: str) -> None:
    """Refuse to mix results of different models or windows in one file."""
    for row in kept:
        if (row.model, row.window) != (model, window):
            raise ClientError(
                f"the output holds answers of model {row.model}, window {row.window}; these would be of {model}, "
                f"window {window}: choose another --output"
            )


def _local(options: Namespace) -> LocalEngine:
    return LocalEngine(options.models, options.device)


def _answer(found: Found, engine: Engine, window: Window, write: Writer, tally: Tally) -> None:
    """Write the rows of one file."""
    for row in answer(found, engine, window, tally):
        write(row)


def answer(found: Found, engine: Engine, window: Window, tally: Tally) -> Iterator[Row]:
    """Yield the rows of one file, without those that the tally has, and count them."""
    base = Row(printable(found.name), found.sha256, engine.model, window_mark(window))
    for row in _rows(found, engine, window, base, tally):
        if row.error:
            tally.failed += 1
        else:
            tally.answered += 1
        yield row


def window_mark(window: Window) -> str:
    """Return the window as a row has it: centre/width."""
    return f"{window.centre:g}/{window.width:g}"


def _rows(found: Found, engine: Engine, window: Window, base: Row, tally: Tally) -> Iterator[Row]:
    name = base.path
    try:
        if isinstance(found.data, SourceError):
            raise found.data
        for name, image in slices_of(found.data, base.path, window):
            row = Row(name, base.sha256, base.model, base.window)
            if row.key in tally.keys:
                tally.held += 1
                continue
            yield _predicted(row, engine, image)
            tally.keys.add(row.key)  # the same file named twice is one row
    except (ServiceError, ClientError) as error:
        if not found.named and _is_other(error):
            tally.skipped += 1
        else:
            yield _failed(Row(name, base.sha256, base.model, base.window), error)


def _predicted(row: Row, engine: Engine, image: object) -> Row:
    answer = engine.predict(image)  # type: ignore[arg-type]
    found = answer.lung_involvement
    both, left, right = (found.both, found.left, found.right) if found else (None, None, None)
    return replace(
        row,
        probability=answer.probability,
        label=answer.label,
        threshold=answer.threshold,
        lung_involvement=both,
        lung_involvement_left=left,
        lung_involvement_right=right,
        lung_fraction=answer.lung_fraction,
        ood_score=answer.ood_score,
        flagged=answer.flagged,
        reason=answer.reason or "",
    )


def _failed(row: Row, error: ServiceError | ClientError) -> Row:
    code = getattr(error, "code", "no_answer")
    return Row(row.path, row.sha256, row.model, row.window, error=code, detail=getattr(error, "detail", str(error)))


def _is_other(error: Exception) -> bool:
    return is_other_file(error) or (isinstance(error, ProblemError) and error.code == "unsupported_image_type")


def _show(tally: Tally) -> None:
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        print(f"{_line_start()}{tally.summary()} ...", end="", file=sys.stderr, flush=True)


def _line_start() -> str:
    return "\r\x1b[2K" if sys.stderr.isatty() else ""
