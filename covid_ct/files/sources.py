"""Files, folders, globs, URIs and zips to files.

A `Source` is a file before it is read, a `SourceFile` its content, a `SourceSlice` one slice of it. `predict` writes a
`Row` for each slice and keeps the `Counts` of a run; an archive is processed in a `Chunk` of sources at a time, and
written in a `Part` for some chunks.
"""

import glob
import hashlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from covid_ct.errors import ClientError, SourceError
from covid_ct.files.uris import files_of, is_uri, open_uri
from service.errors import ServiceError
from service.imaging.series.archives import Archive, ArchiveLimits, is_zip

LIMITS: Final = ArchiveLimits()
"""Of a zip; `max_file_bytes` is that of any file. The files of a zip are unpacked one at a time, never to the disk."""

Problem: TypeAlias = tuple[str, str]
"""Code and sentence of what is wrong with a path."""

PathLike: TypeAlias = str | os.PathLike[str]

_NO_FILES: Final = ("no_files", "The folder has no files to read.")
_NOT_FOUND: Final = ("not_found", "No file matches.")


@dataclass(frozen=True, slots=True)
class Source:
    """A file before it is read, or a path that leads to none.

    Attributes:
        path: of the file or of the zip, or its URI; `-` is standard input.
        named: whether the user named it, rather than a folder or a zip that holds it.
        stamp: size and time of the last change; for a file in a zip its name, size and checksum.
        member: number of the file in the zip, sorted by name; None for a whole file.
        problem: why there is no file, or None.
    """

    path: str
    named: bool
    stamp: str = ""
    member: int | None = None
    problem: Problem | None = None

    @property
    def key(self) -> str:
        """Identity of the file and its content, as far as known without reading it: 32 hexadecimal digits."""
        place = self.path if is_uri(self.path) else str(Path(self.path).absolute())
        text = repr((place, self.member is None, self.stamp))
        return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was read.

    Attributes:
        name: its path; a file in a zip is `archive.zip!member`.
        data: its bytes, or why there are none.
        named: see `Source`.
    """

    name: str
    data: bytes | SourceError | ServiceError
    named: bool

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, hexadecimal; empty without bytes."""
        return hashlib.sha256(self.data).hexdigest() if isinstance(self.data, bytes) else ""


def list_sources(paths: Sequence[str]) -> Iterator[Source]:
    """Yield every file of paths, folders, globs and URIs without reading it, each once; folders are sorted by name.

    Memory does not grow with the number of files, except by 100 bytes each where several paths may name the same one.

    Raises:
        ClientError: a URI can't be listed.
    """
    several = len(paths) > 1 or any(map(glob.has_magic, paths))
    seen: set[bytes] = set()
    last = ""
    for text in paths:
        for source in _files_or_members(text):
            key = source.key
            if key == last or bytes.fromhex(key) in seen:
                continue  # a zip may hold a file twice
            last = key
            if several:
                seen.add(bytes.fromhex(key))
            yield source


def _files_or_members(text: str) -> Iterator[Source]:
    """Yield the files of a path, and for each zip its files. A zip of another name is one source until it is read."""
    try:
        for source in _files(text):
            yield from members_of(source)
    except ClientError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever one path does, the others are still read
        yield Source(text, named=True, problem=("unreadable_file", f"It can't be read: {error}."))


def members_of(source: Source) -> Iterator[Source]:
    """Yield the files of a zip that is called so, else the source."""
    is_named_zip = source.problem is None and source.path.lower().endswith(".zip")
    stamps = _member_stamps(source.path) if is_named_zip else []
    if not stamps:  # read as a file, which gives the reason
        yield source
    for number, stamp in enumerate(stamps):
        yield Source(source.path, False, stamp, number)


def study_sources(paths: PathLike | Iterable[PathLike]) -> list[Source]:
    """List the files of a study: paths, folders with all below them, globs and URIs; a zip is one file.

    Raises:
        SourceError: a path leads to no file, or is standard input.
        ClientError: a URI can't be listed.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    sources = [source for path in several for source in _files(os.fspath(path))]
    for source in sources:
        if source.path == "-":
            raise SourceError("no_files", "A study is not read from standard input; name its files.")
        problem = source.problem or (None if source.stamp else _NOT_FOUND)
        if problem is not None:
            raise SourceError(problem[0], f"{source.path}: {problem[1]}")
    return sources


def _files(text: str) -> Iterator[Source]:
    if is_uri(text):
        for uri, stamp, named in files_of(text):
            yield Source(uri, named, stamp)
    elif text == "-":
        yield Source(text, named=True)
    else:
        yield from _files_below(text)


def _files_below(text: str) -> Iterator[Source]:
    """Yield the files of a path, a folder or a glob without opening them."""
    path = Path(text)
    if path.is_dir():
        empty = True
        for source in _folder(str(path), set()):
            empty = False
            yield source
        if empty:
            yield Source(text, named=True, problem=_NO_FILES)
    elif path.exists() or not glob.has_magic(text):
        yield Source(str(path), True, _stamp(path))
    else:
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matches:
            yield Source(text, named=True, problem=_NOT_FOUND)
        for match in matches:
            yield from _files_below(match)


def _folder(folder: str, followed: set[str]) -> Iterator[Source]:
    """Yield the files below a folder without hidden ones, one folder in memory; a link is followed once, and no loop.

    Args:
        folder: its path.
        followed: real paths of the folders that links led to.
    """
    try:
        with os.scandir(folder) as scanned:
            shown = [entry for entry in scanned if not entry.name.startswith(".")]
    except OSError as error:
        yield Source(folder, named=True, problem=("unreadable_folder", f"It can't be read: {error.strerror}."))
        return
    for entry in sorted(shown, key=lambda entry: entry.name):
        if entry.is_dir():
            if not entry.is_symlink() or _follow(folder, entry.path, followed):
                yield from _folder(entry.path, followed)
        elif entry.is_file() or entry.is_symlink():  # a link to nothing is a file that can't be read
            yield Source(str(Path(entry.path)), False, _stamp(Path(entry.path)))


def _follow(folder: str, link: str, followed: set[str]) -> bool:
    """Whether to follow a link to a folder: not to one that was followed before, and not to one that holds the link."""
    target = os.path.realpath(link)
    above = [os.path.realpath(path) for path in (folder, *map(str, Path(folder).parents))]
    if target in followed or any(Path(path).is_relative_to(target) for path in above):
        return False
    followed.add(target)
    return True


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _member_stamps(path: str) -> list[str]:
    try:
        with open_source(path) as file, Archive(file, LIMITS) as archive:
            return archive.stamps
    except (OSError, ServiceError):
        return []


def open_source(path: str) -> BinaryIO:
    """Open the file of a path or a URI for reading; raises `OSError`."""
    return open_uri(path) if is_uri(path) else Path(path).open("rb")


def read_sources(sources: Iterable[Source]) -> Iterator[tuple[Source, Iterable[SourceFile]]]:
    """Yield each source with its files; a zip is opened once for files that follow each other."""
    with ExitStack() as stack:
        opened = ""
        archive: Archive | SourceError | ServiceError | None = None
        for source in sources:
            if source.member is None:
                yield source, _read(source)
                continue
            if source.path != opened:
                stack.close()
                archive, opened = _open_archive(source.path, stack), source.path
            if isinstance(archive, Archive):
                yield source, [_member(archive, source, source.member)]
            elif archive is not None:
                yield source, [SourceFile(source.path, archive, named=True)]


def _open_archive(path: str, stack: ExitStack) -> Archive | SourceError | ServiceError:
    try:
        return stack.enter_context(Archive(stack.enter_context(open_source(path)), LIMITS))
    except OSError as error:
        return _unreadable(error)
    except ServiceError as error:
        return error


def _member(archive: Archive, source: Source, number: int) -> SourceFile:
    if number >= len(archive) or archive.stamps[number] != source.stamp:
        changed = SourceError("unreadable_file", "The zip changed after it was listed.")
        return SourceFile(source.path, changed, named=True)
    return SourceFile(f"{source.path}!{archive.name(number)}", archive.read(number), named=False)


def _read(source: Source) -> Iterator[SourceFile]:
    """Yield one file, or the files of a zip."""
    if source.problem is not None:
        yield SourceFile(source.path, SourceError(*source.problem), named=True)
        return
    try:
        if source.path == "-":
            yield from _opened(source, sys.stdin.buffer)
            return
        with open_source(source.path) as file:
            yield from _opened(source, file)
    except OSError as error:
        yield SourceFile(source.path, _unreadable(error), source.named)
    except ServiceError as error:
        yield SourceFile(source.path, error, named=True)


def _unreadable(error: OSError) -> SourceError:
    return SourceError("unreadable_file", f"The file can't be read: {error.strerror or error}.")


def _opened(source: Source, file: BinaryIO) -> Iterator[SourceFile]:
    """Yield an open file or the files of a zip; what can't be sought, such as a pipe, is read into memory first."""
    limit = LIMITS.max_file_bytes
    if not file.seekable():
        file = io.BytesIO(file.read(limit + 1))
    start = file.read(4)
    if is_zip(start):
        with Archive(file, LIMITS) as archive:
            if not len(archive):
                yield SourceFile(source.path, SourceError("no_files", "The zip has no files to read."), named=True)
            for number in range(len(archive)):
                yield SourceFile(f"{source.path}!{archive.name(number)}", archive.read(number), named=False)
        return
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    data = b"" if size > limit else file.read(limit + 1)
    if max(size, len(data)) > limit:  # a device announces 0 bytes and may have no end
        too_large = SourceError("file_too_large", f"The file has more than {limit} bytes.")
        yield SourceFile(source.path, too_large, source.named)
    else:
        yield SourceFile(source.path, data, source.named)
