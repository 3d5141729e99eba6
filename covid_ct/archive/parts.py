"""The output folder of an archive: parts of rows, and a manifest of the files that they answer."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from covid_ct.errors import ClientError
from covid_ct.rows import Row, SeriesRow, printed, read_rows, writer_to

PartFormat: TypeAlias = Literal["csv", "parquet"]

MANIFEST: Final = "manifest.jsonl"
_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class FileRows:
    """Numbers of the rows of one file, or of one study.

    Attributes:
        key: see `Source`.
        rows: its rows in the part, which follow each other.
        failed: how many of them are errors; such a file is tried again by the next run.
    """

    key: str
    rows: int
    failed: int


@dataclass(frozen=True, slots=True)
class Part:
    """Line of the manifest: a part that is complete."""

    name: str
    size: int
    files: tuple[FileRows, ...]


@dataclass(slots=True)
class Output:
    """A folder of parts of one model and one window; a part counts once its line is in the manifest.

    Attributes:
        folder: holds the parts and the manifest.
        form: format of the parts.
        window: centre/width, as in rows.
        kind: of the rows.
        model: of all rows; empty until the first answer.
        done: keys of the files that need no further answer.
        kept: rows of previous runs.
    """

    folder: Path
    form: PartFormat
    window: str
    kind: type[Row] = Row
    model: str = ""
    done: set[bytes] = field(default_factory=set)
    kept: int = 0
    _next: int = 0

    @classmethod
    def open(cls, folder: Path, form: PartFormat, window: str, kind: type[Row] = Row) -> "Output":
        """Create a folder, or continue one: rows of files that failed are taken out of their parts.

        Raises:
            ClientError: the folder is not an output of this command, or of another format, window or kind of rows.
        """
        if folder.exists() and not folder.is_dir():
            raise ClientError(f"{folder}: with --engine ray, the output is a folder, and this is a file")
        folder.mkdir(parents=True, exist_ok=True)
        output = cls(folder, form, window, kind)
        if (folder / MANIFEST).exists():
            output._continue()
        elif any(folder.iterdir()):
            raise ClientError(f"{folder}: has files but no {MANIFEST}; choose another --output")
        return output

    def number_parts(self, count: int) -> int:
        """Reserve so many names of parts, and return the number of the first."""
        first = self._next
        self._next += count
        return first

    def write(self, number: int, model: str, rows: Sequence[Row], files: Sequence[FileRows]) -> None:
        """Write a part, then its line of the manifest.

        Raises:
            ClientError: the rows are of another model than those before.
        """
        if self.model and model != self.model:
            raise ClientError(f"{self.folder} has predictions of model {self.model}, and these would be of {model}")
        if not self.model:
            self.model = model
            self._rewrite([])
        part = self._written(f"part-{number:06d}.{self.form}", rows, tuple(files))
        with (self.folder / MANIFEST).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(part)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _written(self, name: str, rows: Sequence[Row], files: tuple[FileRows, ...]) -> Part:
        path = self.folder / name
        write = _write_parquet if self.form == "parquet" else _write_csv
        write(path, rows, self.kind)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return Part(name, path.stat().st_size, files)

    def _head(self) -> dict[str, Any]:
        rows = "series" if self.kind is SeriesRow else "slices"
        return {"version": _VERSION, "format": self.form, "window": self.window, "rows": rows, "model": self.model}

    def _continue(self) -> None:
        lines = _complete_lines(self.folder / MANIFEST)
        head = next(lines, None)
        if head is None:
            return
        self.model = str(head.get("model", ""))
        if head != self._head():
            raise ClientError(f"{self.folder / MANIFEST}: is {head}, not {self._head()}; choose another --output")
        names: set[str] = set()
        self._rewrite(self._usable(lines, names))
        for path in self.folder.glob(f"part-*.{self.form}"):
            if path.name not in names:
                path.unlink()  # of an interrupted run, or written anew

    def _usable(self, lines: Iterator[dict[str, Any]], names: set[str]) -> Iterator[Part]:
        """Yield the parts that are there, without the files that failed, and collect names and keys."""
        for line in lines:
            part = Part(line["name"], line["size"], tuple(FileRows(**file) for file in line["files"]))
            self._next = max(self._next, int(part.name[5:11]) + 1)
            path = self.folder / part.name
            if path.is_file() and path.stat().st_size == part.size:  # else its files are answered again
                part = self._without_failed(part)
                names.add(part.name)
                self.done.update(bytes.fromhex(file.key) for file in part.files)
                self.kept += sum(file.rows for file in part.files)
                yield part

    def _without_failed(self, part: Part) -> Part:
        """Return the part, or if files of it failed, write another one without them."""
        good = tuple(file for file in part.files if not file.failed)
        if len(good) == len(part.files):
            return part
        rows = iter(_read_part(self.folder / part.name, self.form, self.kind))
        kept: list[Row] = []
        for file in part.files:
            rows_of_file = list(islice(rows, file.rows))
            kept += [] if file.failed else rows_of_file
        return self._written(f"{part.name.partition('.')[0]}r.{self.form}", kept, good)

    def _rewrite(self, parts: Iterable[Part]) -> None:
        """Replace the manifest."""
        path = self.folder / MANIFEST
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(self._head()) + "\n")
            for part in parts:
                file.write(json.dumps(asdict(part)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a manifest; an incomplete last one is dropped.

    Raises:
        ClientError: not a manifest of this command.
    """
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            try:
                yield dict(json.loads(line))
            except (ValueError, TypeError):
                raise ClientError(f"{path}: not a manifest of this command; choose another --output") from None


def _write_csv(path: Path, rows: Sequence[Row], kind: type[Row]) -> None:
    with writer_to(path, "csv", rows, kind):
        pass


def _write_parquet(path: Path, rows: Sequence[Row], kind: type[Row]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types = {"str": pa.string(), "bool | None": pa.bool_(), "float | None": pa.float64(), "int | None": pa.int64()}
    columns = [(field.name, types[str(getattr(field.type, "__name__", field.type))]) for field in fields(kind)]
    schema = pa.schema(columns)
    temporary = path.with_name(f".{path.name}.tmp")
    parquet.write_table(pa.Table.from_pylist([printed(row) for row in rows], schema), temporary)
    temporary.replace(path)


def _read_part(path: Path, form: PartFormat, kind: type[Row]) -> list[Row]:
    if form == "csv":
        return read_rows(path, "csv", kind)
    from pyarrow import parquet

    return [kind(**values) for values in parquet.read_table(path).to_pylist()]
