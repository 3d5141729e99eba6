"""Output rows of `covid-ct predict`, and a file that an interrupted run can continue."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TextIO, TypeAlias, TypeVar

from pydantic import TypeAdapter

from covid_ct.errors import ClientError, ProblemError, SourceError
from service.api import SlicePrediction
from service.api_study import SeriesAnswer
from service.errors import ErrorCode, ServiceError
from service.imaging.window import Window

Format: TypeAlias = Literal["table", "csv", "jsonl"]

RowKey: TypeAlias = tuple[str, str, str, str]
"""Path, SHA-256, model and window."""


@dataclass(frozen=True, slots=True)
class Row:
    """Result row: one slice with its prediction or its error.

    Attributes:
        path: the file; `archive.zip!member` and `file#index` within one.
        sha256: of the file's bytes.
        model: name, version and begin of the hash of the model.
        window: centre/width; empty where none applies, because the file has no Hounsfield units.
        study, series, instance: UIDs of a DICOM slice; empty for other files.
        position_mm: along the normal of the slices, towards the head; empty if not known.
        probability, label, threshold, operating_point: the prediction; empty after an error, the label also if a check
            failed.
        lesion_probability, covid_given_lesion, lesion_threshold: whether there is a lesion, whether it is COVID-19 and
            not another disease, and the threshold of the first; empty if the model does not answer them.
        lung_involvement, lung_involvement_left, lung_involvement_right: area of lesion divided by area of lung, of both
            lungs and of each; empty if the model does not find lungs.
        lung_fraction: area of the lungs divided by that of the picture; empty if the model does not find lungs.
        ood_score, flagged, reason: score of the checks, whether one failed, and which one; a local model refuses then.
        error, detail: code and sentence of what went wrong; empty where nothing did.
    """

    path: str
    sha256: str = ""
    model: str = ""
    window: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    position_mm: float | None = None
    probability: float | None = None
    label: str = ""
    threshold: float | None = None
    operating_point: str = ""
    lesion_probability: float | None = None
    covid_given_lesion: float | None = None
    lesion_threshold: float | None = None
    lung_involvement: float | None = None
    lung_involvement_left: float | None = None
    lung_involvement_right: float | None = None
    lung_fraction: float | None = None
    ood_score: float | None = None
    flagged: bool | None = None
    reason: str = ""
    error: str = ""
    detail: str = ""

    @property
    def key(self) -> RowKey:
        """Identity of a result: a row with the same key need not be computed again."""
        return self.path, self.sha256, self.model, self.window

    @property
    def is_without_lungs(self) -> bool:
        """Whether this is a slice in Hounsfield units, so of a series, without lungs."""
        return self.error == ErrorCode.NO_LUNGS and bool(self.window)

    @property
    def is_final(self) -> bool:
        """Whether another run would give the same; other errors are tried again."""
        return not self.error or self.is_without_lungs


@dataclass(frozen=True, slots=True)
class SeriesRow(Row):
    """Result row of one series, or the error of a study.

    Attributes:
        path: the study, as it was named.
        sha256: of the SHA-256 of its files, in their order.
        rows, columns: size of a slice in pixels.
        spacing_mm: median distance between slices; empty if not known.
        slices_read, slices_without_lungs, slices_not_read, slices_failed: numbers of slices.
        lung_volume_ml, lesion_volume_ml: empty if the positions of the slices are not known.
        severity: band of the involvement, CT-0 to CT-4.
        warnings: codes of unusual positions, with spaces between.
    """

    rows: int | None = None
    columns: int | None = None
    spacing_mm: float | None = None
    slices_read: int | None = None
    slices_without_lungs: int | None = None
    slices_not_read: int | None = None
    slices_failed: int | None = None
    lung_volume_ml: float | None = None
    lesion_volume_ml: float | None = None
    severity: str = ""
    warnings: str = ""

    @property
    def is_without_lungs(self) -> bool:
        """Whether this is a series without lungs in a study that has others."""
        return self.error == ErrorCode.NO_LUNGS


R = TypeVar("R", bound=Row)


def with_answer(row: R, answer: SlicePrediction | SeriesAnswer) -> R:
    """Fill the columns that a slice and a series have in common."""
    involvement = answer.lung_involvement
    return replace(
        row,
        probability=answer.probability,
        label=answer.label or "",
        threshold=answer.threshold,
        operating_point=answer.operating_point,
        lesion_probability=answer.lesion_probability,
        covid_given_lesion=answer.covid_given_lesion,
        lung_involvement=involvement.both if involvement else None,
        lung_involvement_left=involvement.left if involvement else None,
        lung_involvement_right=involvement.right if involvement else None,
    )


def failed_row(row: R, error: Exception) -> R:
    """Complete a row with an error."""
    if isinstance(error, ServiceError | ProblemError | SourceError):
        return replace(row, error=str(error.code), detail=error.detail)
    if isinstance(error, ClientError):
        return replace(row, error="no_answer", detail=str(error))
    return replace(row, error="internal_error", detail=f"This program failed: {type(error).__name__}: {error}")


def window_mark(window: Window | None) -> str:
    """Return the window as a row has it: centre/width, or nothing if none applies."""
    return "" if window is None else f"{window.centre:g}/{window.width:g}"


def columns_of(kind: type[Row]) -> tuple[str, ...]:
    """Return the columns of rows of this kind."""
    return tuple(field.name for field in fields(kind))


T = TypeVar("T")


def in_anatomical_order(items: Iterable[T], row_of: Callable[[T], Row | None]) -> list[T]:
    """Sort slices by position within their series, from the feet to the head; a series stays where it begins.

    Args:
        items: slices, or files with several.
        row_of: gives the row of an item, the first one of several.
    """
    listed = list(items)
    begins: dict[tuple[str, str], int] = {}
    keys: list[tuple[int, float]] = []
    for index, row in enumerate(map(row_of, listed)):
        if row is None or not row.series or row.position_mm is None:
            keys.append((index, 0.0))
        else:
            keys.append((begins.setdefault((row.study, row.series), index), row.position_mm))
    return [listed[index] for index in sorted(range(len(listed)), key=keys.__getitem__)]


_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
"""Start of a text that a spreadsheet would run, or of one that was escaped."""


Writer: TypeAlias = Callable[[Row], None]
"""Writes one row and flushes it."""


def read_rows(path: Path, form: Format, kind: type[Row] = Row) -> list[Row]:
    """Read the complete rows of an output file; an incomplete last line is dropped.

    Raises:
        ClientError: the file is not an output of this command in this format.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ClientError(f"{path}: can't be read: {error.strerror}") from error
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        if text and not ",".join(columns_of(kind)).startswith(text) and not text.startswith('{"path"'):
            raise _foreign(path, form)
        return []
    try:
        values = [json.loads(line) for line in whole.splitlines()] if form == "jsonl" else _csv_rows(whole, kind)
        parse = TypeAdapter(kind).validate_python
        return [parse({name: value for name, value in row.items() if value not in (None, "")}) for row in values]
    except (ValueError, AttributeError, csv.Error):
        raise _foreign(path, form) from None


@contextmanager
def writer_to(path: Path | None, form: Format, kept: Iterable[Row] = (), kind: type[Row] = Row) -> Iterator[Writer]:
    """Open a writer to a file, which starts with the rows `kept`, or to standard output.

    Raises:
        ClientError: the file can't be written.
    """
    if path is None:
        with _translate_os_errors("standard output"):
            _begin(sys.stdout, form, kind)
            yield lambda row: _write(sys.stdout, row, form)
        return
    path = path.resolve()  # a link stays one
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _translate_os_errors(str(path)):
        with temporary.open("w", encoding="utf-8", newline="") as file:
            _begin(file, form, kind)
            for row in kept:
                _write(file, row, form)
        temporary.replace(path)
        with path.open("a", encoding="utf-8", newline="") as file:
            yield lambda row: _write(file, row, form)


@contextmanager
def _translate_os_errors(name: str) -> Iterator[None]:
    """Report that the disk is full or the file not writable in one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ClientError(f"{name}: can't be written: {error.strerror}") from error


def _begin(file: TextIO, form: Format, kind: type[Row]) -> None:
    """Write the first line."""
    if form == "table":
        file.write(f"{'probability':>11}  {'label':<10} {'lesion/lung':>11}  path\n")
    elif form == "csv":
        csv.writer(file, lineterminator="\n").writerow(columns_of(kind))


def _write(file: TextIO, row: Row, form: Format) -> None:
    values = printed(row)
    if form == "jsonl":
        file.write(json.dumps(values) + "\n")
    elif form == "csv":
        csv.writer(file, lineterminator="\n").writerow(_cell(name, value) for name, value in values.items())
    else:
        file.write(_table_line(row))
    file.flush()


def printed(row: Row) -> dict[str, Any]:
    """Return the fields by name, texts escaped."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in asdict(row).items()}


def _table_line(row: Row) -> str:
    error = f"  {row.error}: {row.detail}" if row.error else f"  check failed: {row.reason}" if row.flagged else ""
    start = f"{_shown(row.probability)}  {row.label or '-':<10} {_shown(row.lung_involvement)}"
    return printable(f"{start}  {row.path}{error}") + "\n"


def _shown(value: float | None) -> str:
    """Format a number of the table."""
    return f"{'-':>11}" if value is None else f"{value:>11.4f}"


def printable(text: str) -> str:
    """Escape line breaks, control characters of terminals, and bytes that are not Unicode."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in plain)


def _cell(name: str, value: object) -> object:
    """Return the cell of a CSV: a text that a spreadsheet would run gets an apostrophe in front, like on the page.

    A window is our own text, and may start with a minus.
    """
    if isinstance(value, str) and name != "window" and _FORMULA.match(value):
        return f"'{value}"
    return "" if value is None else value


def _text_of(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _csv_rows(text: str, kind: type[Row]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != columns_of(kind):
        raise ValueError("another header")
    return [{name: _text_of(cell) for name, cell in row.items()} for row in reader]


def _foreign(path: Path, form: Format) -> ClientError:
    return ClientError(f"{path}: not an output of this command in {form}; choose another --output or move it away")
