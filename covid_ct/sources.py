"""From paths to slices: files, folders, globs and zips; a file may hold one slice or many."""

import glob
import hashlib
import io
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Literal, NamedTuple, TypeAlias

from covid_ct.errors import SourceError
from covid_ct.nifti import is_nifti, nifti_slices
from service.errors import ErrorCode, ServiceError
from service.imaging.decode import DecodeLimits, Slice, decode, decode_frames
from service.imaging.dicom import is_dicom, open_dicom
from service.imaging.window import LUNG, Window

MAX_FILE_BYTES: Final = 1024**3
"""Of a file, or of a member of a zip once unpacked."""

MAX_ZIP_BYTES: Final = 16 * 1024**3
"""Of all members of a zip, unpacked; they are unpacked one at a time, and never to the disk."""

MAX_MEMBERS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """A file that was found, or the reason for a failure.

    Attributes:
        name: its path; a member of a zip is `archive.zip!member`.
        data: its bytes, or what was wrong.
        named: whether the user named it, rather than a folder or a zip that holds it.
        repeated: whether a path before led to the same file; it is not read again.
    """

    name: str
    data: bytes | SourceError
    named: bool
    repeated: bool = False

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, hexadecimal; empty without bytes."""
        return hashlib.sha256(self.data).hexdigest() if isinstance(self.data, bytes) else ""


Problem: TypeAlias = Literal["no_files", "not_found"]

PROBLEMS: Final[dict[Problem, SourceError]] = {
    "no_files": SourceError("no_files", "The folder has no files to read."),
    "not_found": SourceError("not_found", "No file matches."),
}
"""Reasons for which a path leads to no file."""


class Place(NamedTuple):
    """A file that a path leads to, before it is opened, or the reason for none.

    Attributes:
        path: of the file, or as it was given.
        named: whether the user named it, rather than a folder that holds it.
        problem: None for a file.
    """

    path: str
    named: bool
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class FoundSlice:
    """A slice of a file.

    Attributes:
        name: of the file, with #index if the file may have several.
        image: bytes of a file with one slice, uint8 (1, H, W), or the reason for a failure.
        window: that its Hounsfield units go through; None if it has none, so that no window applies.
    """

    name: str
    image: bytes | Slice | Exception
    window: Window | None


def find(paths: Iterable[str]) -> Iterator[Found]:
    """Yield every file of `paths`, one in memory at a time; folders are sorted by name, and `-` is standard input."""
    seen: set[str] = set()
    for text in paths:
        try:
            yield from _standard_input(seen) if text == "-" else _find(text, seen)
        except Exception as error:  # noqa: BLE001 - whatever one path does, the others are still read
            yield Found(text, SourceError("unreadable_file", f"It can't be read: {error}."), named=True)


def _find(text: str, seen: set[str]) -> Iterator[Found]:
    for place in places_of(text):
        if place.problem is None:
            yield from _read_once(place.path, place.named, seen)
        else:
            yield Found(place.path, PROBLEMS[place.problem], named=True)


def places_of(text: str) -> Iterator[Place]:
    """Yield the files of a path, a folder or a glob without opening them, in the order of every engine."""
    path = Path(text)
    if path.is_dir():
        empty = True
        for entry in _files_in(str(path)):
            empty = False
            yield Place(str(Path(entry.path)), named=False)
        if empty:
            yield Place(text, named=True, problem="no_files")
    elif path.exists() or not glob.has_magic(text):
        yield Place(str(path), named=True)
    else:
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matches:
            yield Place(text, named=True, problem="not_found")
        for match in matches:
            yield from places_of(match)


def slices_of(data: bytes, name: str, window: Window = LUNG) -> Iterator[FoundSlice]:
    """Yield the slices of a file: name and bytes unchanged for one slice, else name#index and each slice.

    A DICOM file goes out as it is only for the usual window, so that the other one holds wherever it is decoded.

    Raises:
        SourceError, ServiceError: the file gives no (more) slices.
    """
    if is_nifti(name, data):
        for index, ct_slice in enumerate(nifti_slices(data, window, MAX_FILE_BYTES)):
            yield FoundSlice(f"{name}#{index}", ct_slice, window)
    elif is_dicom(data):
        yield from _dicom_slices(data, name, window)
    else:
        yield FoundSlice(name, data, None)


def _dicom_slices(data: bytes, name: str, window: Window) -> Iterator[FoundSlice]:
    file = open_dicom(data)
    own = window if file.uses_window(0) else None
    if file.header.frames > 1:
        for index, frame in enumerate(decode_frames(data, DecodeLimits(), window)):
            yield FoundSlice(f"{name}#{index}", frame, own)
    else:
        yield FoundSlice(name, data if window == LUNG else decode(data, DecodeLimits(), window), own)


def _files_in(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield all files below, sorted, without hidden files and the index of a DICOM disc; one folder in memory."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted((each for each in scanned if not each.name.startswith(".")), key=lambda each: each.name)
    except OSError:
        return  # such as a folder without permission
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_in(entry.path)
        elif entry.name != "DICOMDIR" and entry.is_file():
            yield entry


def open_path(path: str) -> BinaryIO:
    """Open a file on a disk."""
    return Path(path).open("rb")


def _read_once(name: str, named: bool, seen: set[str]) -> Iterator[Found]:
    absolute = str(Path(name).absolute())
    if absolute in seen:
        yield Found(name, b"", named, repeated=True)
    else:
        seen.add(absolute)
        yield from read_file(name, named)


def read_file(name: str, named: bool, opened: Callable[[str], BinaryIO] = open_path) -> Iterator[Found]:
    """Yield one file, or the members of a zip; `opened` opens it by its name."""
    try:
        with opened(name) as file:
            yield from _read(name, file, named)
    except OSError as error:
        reason = f"The file can't be read: {error.strerror or error}."
        yield Found(name, SourceError("unreadable_file", reason), named)


def _standard_input(seen: set[str]) -> Iterator[Found]:
    if "-" in seen:
        yield Found("-", b"", named=True, repeated=True)
    else:
        seen.add("-")
        yield from _read("-", sys.stdin.buffer, named=True)


def _read(name: str, file: BinaryIO, named: bool) -> Iterator[Found]:
    """Yield an open file; what can't be sought, such as a pipe, is read into memory first."""
    if not file.seekable():
        file = io.BytesIO(file.read(MAX_FILE_BYTES + 1))
    if is_zip(file):
        yield from _members(name, file)
        return
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    data = b"" if size > MAX_FILE_BYTES else file.read(MAX_FILE_BYTES + 1)
    if max(size, len(data)) > MAX_FILE_BYTES:  # a device announces 0 bytes and may have no end
        too_large = SourceError("file_too_large", f"The file has more than {MAX_FILE_BYTES} bytes.")
        yield Found(name, too_large, named)
    else:
        yield Found(name, data, named)


def is_zip(file: BinaryIO) -> bool:
    """Whether an open file starts like a zip; leaves it at its start."""
    start = file.read(4)
    file.seek(0)
    return start in (b"PK\x03\x04", b"PK\x05\x06")


def _members(name: str, file: BinaryIO) -> Iterator[Found]:
    opened = open_zip(file)
    if isinstance(opened, SourceError):
        yield Found(name, opened, named=True)
        return
    archive, members = opened
    with archive:
        if not members:
            yield Found(name, SourceError("no_files", "The zip has no files to read."), named=True)
        for member in members:
            yield Found(f"{name}!{member.filename}", unpacked(archive, member), named=False)


def open_zip(file: BinaryIO) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]] | SourceError:
    """Open a zip and list its members sorted by name, without hidden files; or say what is wrong with it."""
    try:
        archive = zipfile.ZipFile(file)
    except Exception:  # noqa: BLE001 - zipfile raises nearly anything on hostile bytes
        return SourceError("damaged_archive", "The zip is damaged.")
    members = [member for member in archive.infolist() if not member.is_dir()]
    total = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or total > MAX_ZIP_BYTES:
        reason = f"The zip announces {len(members)} files of {total} bytes; the limits are {MAX_MEMBERS} files"
        return SourceError("archive_too_large", f"{reason} and {MAX_ZIP_BYTES} bytes.")
    shown = [member for member in members if not any(map(_is_hidden, _parts(member)))]
    return archive, sorted(shown, key=lambda member: member.filename)


def _is_hidden(part: str) -> bool:
    return (part.startswith(".") and part != "..") or part in ("__MACOSX", "DICOMDIR")


def _parts(member: zipfile.ZipInfo) -> tuple[str, ...]:
    return PurePosixPath(member.filename.replace("\\", "/")).parts


def unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | SourceError:
    """Return the bytes of a member, or what is wrong with it."""
    parts = _parts(member)
    if ".." in parts or not parts or parts[0] == "/" or re.match("[A-Za-z]:", parts[0]):
        return SourceError("unsafe_name", "The zip's member has a name that leads out of the zip.")
    if member.file_size > MAX_FILE_BYTES:
        return SourceError("file_too_large", f"The zip's member announces {member.file_size} bytes.")
    if member.flag_bits & 1:
        return SourceError("encrypted", "The zip's member is encrypted; unpack it first.")
    try:
        with archive.open(member) as file:
            data = file.read(MAX_FILE_BYTES + 1)  # what it announces may be a lie
    except Exception:  # noqa: BLE001 - as in open_zip
        return SourceError("damaged_archive", "The zip's member is damaged, or packed in a way that is not read.")
    if len(data) > MAX_FILE_BYTES:
        return SourceError("file_too_large", f"The zip's member has more than {MAX_FILE_BYTES} bytes.")
    if data[:4] == b"PK\x03\x04":
        return SourceError("nested_archive", "A zip in a zip is not opened; unpack the outer one first.")
    return data


def is_other_file(error: Exception) -> bool:
    """Whether the error means that the file is not an image; folders may contain other files."""
    return isinstance(error, ServiceError) and error.code == ErrorCode.UNSUPPORTED_IMAGE_TYPE
