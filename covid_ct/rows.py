"""Output rows of `covid-ct predict`, and a file that an interrupted run can continue."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from covid_ct.errors import ClientError

Format: TypeAlias = Literal["table", "csv", "jsonl"]


@dataclass(frozen=True, slots=True)
class Row:
    """Result row: one slice with its prediction or its error.

    Attributes:
        path: the file; `archive.zip!member` and `file#index` within one.
        sha256: of the file's bytes.
        model: name, version and begin of the hash of the model.
        window: centre/width; empty where none applies, because the file has no Hounsfield units.
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
    sha256: str
    model: str
    window: str
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
    def key(self) -> tuple[str, str, str, str]:
        """Identity of a result: a row with the same key need not be computed again."""
        return self.path, self.sha256, self.model, self.window


COLUMNS: Final = tuple(field.name for field in fields(Row))


class Writer(Protocol):
    """Writes rows one by one."""

    def __call__(self, row: Row) -> None:
        """Write one row and flush it."""
        ...


def read_rows(path: Path, form: Format) -> list[Row]:
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
        if text and not ",".join(COLUMNS).startswith(text) and not text.startswith('{"path"'):
            raise _foreign(path, form)
        return []
    try:
        raw = [json.loads(line) for line in whole.splitlines()] if form == "jsonl" else _csv_rows(whole)
        return [_row(fields) for fields in raw]
    except (ValueError, KeyError, TypeError, csv.Error):
        raise _foreign(path, form) from None


@contextmanager
def writer_to(path: Path | None, form: Format, kept: Iterable[Row] = ()) -> Iterator[Writer]:
    """Open a writer to a file, which starts with the rows `kept`, or to standard output.

    Raises:
        ClientError: the file can't be written.
    """
    if path is None:
        yield lambda row: _write(sys.stdout, row, form)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _translate_os_errors(path):
        with temporary.open("w", encoding="utf-8", newline="") as file:
            _begin(file, form)
            for row in kept:
                _write(file, row, form)
        temporary.replace(path)
        with path.open("a", encoding="utf-8", newline="") as file:
            yield lambda row: _write(file, row, form)


@contextmanager
def _translate_os_errors(path: Path) -> Iterator[None]:
    """Report that the disk is full or the file not writable in one line."""
    try:
        yield
    except OSError as error:
        raise ClientError(f"{path}: can't be written: {error.strerror}") from error


def begin_stdout(form: Format) -> None:
    """Write the first line to standard output."""
    if form == "table":
        print(f"{'probability':>11}  {'label':<10} {'lesion/lung':>11}  path")
    else:
        _begin(sys.stdout, form)


def _begin(file: io.TextIOBase | object, form: Format) -> None:
    if form == "csv":
        csv.writer(file, lineterminator="\n").writerow(COLUMNS)  # type: ignore[arg-type]


def _write(file: "io.TextIOBase | object", row: Row, form: Format) -> None:
    values = {name: _printable(value) for name, value in asdict(row).items()}
    line = io.StringIO()
    if form == "jsonl":
        line.write(json.dumps(values) + "\n")
    elif form == "csv":
        csv.writer(line, lineterminator="\n").writerow("" if value is None else value for value in values.values())
    else:
        remark = f"  {row.error}: {row.detail}" if row.error else f"  check failed: {row.reason}" if row.flagged else ""
        numbers = f"{_shown(row.probability)}  {row.label or '-':<10} {_shown(row.lung_involvement)}"
        line.write(f"{numbers}  {values['path']}{remark}\n")
    file.write(line.getvalue())  # type: ignore[union-attr]
    file.flush()  # type: ignore[union-attr]


def _shown(value: float | None) -> str:
    """Format a number of the table."""
    return f"{'-':>11}" if value is None else f"{value:>11.4f}"


def _printable(value: object) -> object:
    """Escape line breaks and bytes that are not Unicode in names."""
    if not isinstance(value, str):
        return value
    plain = value.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in plain)


def printable(name: str) -> str:
    """Format a path for a row."""
    return str(_printable(name))


def _csv_rows(text: str) -> list[dict[str, object]]:
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError("another header")
    return [{name: (value or None) for name, value in row.items()} for row in reader]


def _row(values: dict[str, object]) -> Row:
    def number(name: str) -> float | None:
        value = values[name]
        return None if value is None else float(str(value))

    def text(name: str) -> str:
        return str(values[name] or "")

    flagged = {"True": True, "False": False}.get(str(values["flagged"]))
    return Row(
        path=text("path"),
        sha256=text("sha256"),
        model=text("model"),
        window=text("window"),
        probability=number("probability"),
        label=text("label"),
        threshold=number("threshold"),
        operating_point=text("operating_point"),
        lesion_probability=number("lesion_probability"),
        covid_given_lesion=number("covid_given_lesion"),
        lesion_threshold=number("lesion_threshold"),
        lung_involvement=number("lung_involvement"),
        lung_involvement_left=number("lung_involvement_left"),
        lung_involvement_right=number("lung_involvement_right"),
        lung_fraction=number("lung_fraction"),
        ood_score=number("ood_score"),
        flagged=flagged,
        reason=text("reason"),
        error=text("error"),
        detail=text("detail"),
    )


def _foreign(path: Path, form: Format) -> ClientError:
    return ClientError(f"{path}: not an output of this command in {form}; choose another --output or move it away")
