"""Reads the files of a zip, one at a time, in memory, within limits."""

import re
import stat
import struct
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from service.errors import ErrorCode, ServiceError, UnusableImageError

MAX_FILES: Final = 20_000
"""Files of a study, in a zip or in a form."""

_SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of a zip, and of an empty one."""

_ENTRY_SIGNATURE: Final = b"PK\x01\x02"
_ENTRY_SIZE: Final = 46
"""Bytes of an entry of the central directory (APPNOTE 4.3.12) before its name, extra fields and comment."""

_ENTRY_BYTES: Final = _ENTRY_SIZE + 256
"""Bytes in the central directory for each file that is allowed: a long name and some extra fields."""

_ENTRIES_A_FILE: Final = 2
"""Entries for each file that is allowed: macOS adds a hidden one to each."""

_MAX_EXTRA_BYTES: Final = 1024
"""Of an entry; packers write 30 to 100."""

_EXTRA_BYTES: Final = 64
"""For each file that is allowed."""

_COMPRESSIONS: Final = frozenset((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
"""What zipfile unpacks in pieces. It unpacks bzip2 and LZMA without a limit: 893 bytes became 2 GB."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Limits of a zip.

    Attributes:
        max_files: files in it.
        max_file_bytes: of one file, unpacked.
        max_bytes: of all files, unpacked.
    """

    max_files: int = MAX_FILES
    max_file_bytes: int = 1024**3
    max_bytes: int = 16 * 1024**3


def is_zip(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a zip."""
    return start[:4] in _SIGNATURES


class Archive:
    """An open zip: its files sorted by name, without folders and hidden files, also those that macOS adds.

    Args:
        file: open for reading, and can seek.
        limits: see `ArchiveLimits`; `max_bytes` is compared with what the zip announces, which zipfile holds it to.

    Attributes:
        stamps: name, size and checksum of each file.

    Raises:
        UnusableImageError: the zip can't be read, or is beyond a limit.
    """

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._zip = _open(file, limits)
        self._limits = limits
        members = [member for member in self._zip.infolist() if not _is_folder(member) and not _is_hidden(member)]
        if len(members) > limits.max_files:
            raise _too_large(f"holds {len(members)} files, and the limit is {limits.max_files}")
        if sum(member.file_size for member in members) > limits.max_bytes:
            raise _too_large(f"unpacks to more than {limits.max_bytes} bytes")
        self._members = sorted(members, key=lambda member: member.filename)
        self.stamps = [f"{member.filename}-{member.file_size}-{member.CRC:08x}" for member in self._members]

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __len__(self) -> int:
        return len(self._members)

    def name(self, number: int) -> str:
        """Path of a file in the zip, with forward slashes."""
        return "/".join(_parts(self._members[number]))

    def size(self, number: int) -> int:
        """Announced size of a file in bytes, beyond which it is not unpacked."""
        return self._members[number].file_size

    def read(self, number: int) -> bytes | ServiceError:
        """Unpack a file, or return the reason why it is unreadable."""
        return self._unpacked(self._members[number])

    def read_start(self, number: int, size: int) -> bytes:
        """Unpack the first bytes of a file; none if it is unreadable."""
        start = self._unpacked(self._members[number], size)
        return start if isinstance(start, bytes) else b""

    def _unpacked(self, member: zipfile.ZipInfo, size: int = -1) -> bytes | ServiceError:
        refusal = _refusal(member)
        if refusal is not None:
            return refusal
        if member.file_size > self._limits.max_file_bytes:
            return _unusable(f"unpacks to more than {self._limits.max_file_bytes} bytes", ErrorCode.LIMIT_EXCEEDED)
        try:
            with self._zip.open(member) as opened:
                data = opened.read(member.file_size + 1 if size < 0 else size)  # read() may unpack more
        except Exception:  # noqa: BLE001 - as in _open
            return _unusable("is damaged", ErrorCode.DAMAGED_ARCHIVE)
        if is_zip(data):
            why = "is a zip itself, which is not opened; unpack the outer one first"
            return _unusable(why, ErrorCode.NESTED_ARCHIVE)
        return data


def _open(file: BinaryIO, limits: ArchiveLimits) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(_ListReader(file, limits))
    except ServiceError:
        raise
    except Exception:  # noqa: BLE001 - zipfile raises nearly anything on hostile bytes
        raise UnusableImageError(
            "The zip is damaged: its list of files can't be read. Pack it again, and send the whole file.",
            code=ErrorCode.DAMAGED_ARCHIVE,
        ) from None
    archive.fp = file
    return archive


class _ListReader:
    """Reads the list of files for zipfile, and refuses one that takes long to parse, wherever the zip says it lies."""

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self.seek = file.seek
        self.tell = file.tell
        self._file = file
        self._limits = limits

    def read(self, size: int = -1) -> bytes:
        """Read from the file; zipfile reads the whole list at once."""
        if size > self._limits.max_files * _ENTRY_BYTES:
            raise _too_large(f"has a list of files of {size} bytes, and the limit is {self._limits.max_files} files")
        data = self._file.read(size)
        if data.startswith(_ENTRY_SIGNATURE):
            _check_entries(data, self._limits.max_files)
        return data


def _check_entries(entries: bytes, max_files: int) -> None:
    """Refuse too many entries, and long extra fields: zipfile copies the rest of them for each field."""
    at = count = extra_bytes = 0
    while at + _ENTRY_SIZE <= len(entries):
        name, extra, comment = struct.unpack_from("<3H", entries, at + 28)
        count += 1
        extra_bytes += extra
        if count > _ENTRIES_A_FILE * max_files:
            raise _too_large(f"holds more than {_ENTRIES_A_FILE * max_files} entries")
        if extra > _MAX_EXTRA_BYTES or extra_bytes > _EXTRA_BYTES * max_files + _MAX_EXTRA_BYTES:
            raise UnusableImageError(
                f"The zip has {extra} bytes of extra fields for a file, and the limits are {_MAX_EXTRA_BYTES} for one "
                f"and {_EXTRA_BYTES} on average. Pack the files again.",
                code=ErrorCode.ARCHIVE_TOO_LARGE,
            )
        at += _ENTRY_SIZE + name + extra + comment


def _refusal(member: zipfile.ZipInfo) -> ServiceError | None:
    """Return why a member is not unpacked, or None."""
    parts = _parts(member)
    if ".." in parts or not parts or parts[0] == "/" or re.match("[A-Za-z]:", parts[0]):
        return _unusable("has a name that points outside of the zip", ErrorCode.UNSAFE_NAME)
    if stat.S_ISLNK(member.external_attr >> 16):
        return _unusable("is a symbolic link", ErrorCode.UNSAFE_NAME)
    if member.flag_bits & 1:
        return _unusable("is encrypted; unpack it first", ErrorCode.ENCRYPTED)
    if member.compress_type not in _COMPRESSIONS:
        return _unusable("is not compressed by Deflate; pack it again, or unpack it first", ErrorCode.DAMAGED_ARCHIVE)
    return None


def _is_folder(member: zipfile.ZipInfo) -> bool:
    """Whether it is a folder; some packers write a backslash, or an attribute of DOS or Unix, instead of the slash."""
    is_marked = member.external_attr & 0x10 or stat.S_ISDIR(member.external_attr >> 16)
    return member.filename.endswith(("/", "\\")) or bool(is_marked and not member.file_size)


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in _parts(member))


def _parts(member: zipfile.ZipInfo) -> tuple[str, ...]:
    return PurePosixPath(member.filename.replace("\\", "/")).parts


def _unusable(what: str, code: ErrorCode) -> UnusableImageError:
    return UnusableImageError(f"The file in the zip {what}.", code=code)


def _too_large(what: str) -> UnusableImageError:
    return UnusableImageError(
        f"The zip {what}. Send one study, or a part of it, at a time.", code=ErrorCode.ARCHIVE_TOO_LARGE
    )
