"""From paths to slices: files, folders, globs and zips; a file may hold one slice or many."""

import glob
import gzip
import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

import numpy as np

from client.errors import ClientError
from service.errors import ErrorCode, ServiceError
from service.imaging.decode import DecodeLimits, Slice, decode_frames
from service.imaging.dicom import is_dicom, open_dicom
from service.imaging.window import LUNG, Window

MAX_FILE_BYTES: Final = 1024**3
"""Of a file, or of a member of a zip once unpacked."""

MAX_ZIP_BYTES: Final = 16 * 1024**3
"""Of all members of a zip, unpacked; they are unpacked one at a time, and never to the disk."""

MAX_MEMBERS: Final = 20_000


class SourceError(ClientError):
    """A file that can't be used.

    Attributes:
        code: stable name, snake_case.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Found:
    """A file that was found, or the reason for a failure.

    Attributes:
        name: its path; a member of a zip is `archive.zip!member`.
        data: its bytes, or what was wrong.
        named: whether the user named it, rather than a folder or a zip that holds it.
    """

    name: str
    data: bytes | SourceError
    named: bool

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, hexadecimal; empty without bytes."""
        return hashlib.sha256(self.data).hexdigest() if isinstance(self.data, bytes) else ""


def find(paths: Iterable[str]) -> Iterator[Found]:
    """Yield every file of `paths`, one in memory at a time; folders are sorted by name."""
    for text in paths:
        path = Path(text)
        if path.is_dir():
            for entry in files_in(str(path)):
                yield from read_file(str(Path(entry.path)), named=False)
        elif path.exists() or not glob.has_magic(text):
            yield from read_file(str(path), named=True)
        else:
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            if not matches:
                yield Found(text, SourceError("not_found", "No file matches."), named=True)
            yield from find(matches)


def slices_of(data: bytes, name: str, window: Window = LUNG) -> Iterator[tuple[str, bytes | Slice]]:
    """Yield the slices of a file: name and bytes unchanged for one slice, else name#index and each slice.

    A DICOM file goes out as it is only for the usual window, so that the other one holds wherever it is decoded.

    Raises:
        SourceError, ServiceError: the file gives no (more) slices.
    """
    if _is_nifti(name, data):
        for index, ct_slice in enumerate(_nifti_slices(data, window)):
            yield f"{name}#{index}", ct_slice
    elif is_dicom(data) and (window != LUNG or open_dicom(data).header.frames > 1):
        single = open_dicom(data).header.frames == 1
        for index, ct_slice in enumerate(decode_frames(data, DecodeLimits(), window)):
            yield (name if single else f"{name}#{index}"), ct_slice
    else:
        yield name, data


def files_in(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield all files below, sorted, without hidden files and the index of a DICOM disc; one folder in memory."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted((each for each in scanned if not each.name.startswith(".")), key=lambda each: each.name)
    except OSError:
        return  # such as a folder without permission
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(entry.path)
        elif entry.name != "DICOMDIR" and entry.is_file():
            yield entry


def open_path(path: str) -> BinaryIO:
    """Open a file on a disk."""
    return Path(path).open("rb")


def read_file(name: str, named: bool, opened: Callable[[str], BinaryIO] = open_path) -> Iterator[Found]:
    """Yield one file, or the members of a zip; `opened` opens it by its name."""
    try:
        with opened(name) as file:
            start = file.read(4)
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if start in (b"PK\x03\x04", b"PK\x05\x06"):
                yield from _members(name, file)
                return
            data: bytes | SourceError = SourceError(
                "file_too_large", f"The file has {size} bytes, and the limit is {MAX_FILE_BYTES}."
            )
            if size <= MAX_FILE_BYTES:
                data = file.read()
    except OSError as error:
        data = SourceError("unreadable_file", f"The file can't be read: {error.strerror or error}.")
    yield Found(name, data, named)


def _members(name: str, file: BinaryIO) -> Iterator[Found]:
    opened = open_zip(file)
    if isinstance(opened, SourceError):
        yield Found(name, opened, named=True)
        return
    archive, members = opened
    with archive:
        for member in members:
            yield Found(f"{name}!{member.filename}", unpacked(archive, member), named=False)


def open_zip(file: BinaryIO) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]] | SourceError:
    """Open a zip and list its members sorted by name, without hidden files; or say what is wrong with it."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
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
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, MemoryError):
        return SourceError("damaged_archive", "The zip's member is damaged, or packed in a way that is not read.")
    if len(data) > MAX_FILE_BYTES:
        return SourceError("file_too_large", f"The zip's member has more than {MAX_FILE_BYTES} bytes.")
    if data[:4] == b"PK\x03\x04":
        return SourceError("nested_archive", "A zip in a zip is not opened; unpack the outer one first.")
    return data


def _is_nifti(name: str, data: bytes) -> bool:
    plain = data[344:347] in (b"n+1", b"ni1") or data[4:7] == b"n+2"
    if plain or data[:2] != b"\x1f\x8b" or name.lower().endswith((".nii.gz", ".nii")):
        return plain or data[:2] == b"\x1f\x8b"
    try:  # judged by its bytes, whatever its name
        start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data[:4096], 352)
    except zlib.error:
        return False
    return start[344:347] in (b"n+1", b"ni1") or start[4:7] == b"n+2"


def _nifti_slices(data: bytes, window: Window) -> Iterator[Slice]:
    """Yield axial slices from feet to head in radiological view: the patient's right is at the left.

    Infinite voxels and those that are not a number are air.
    """
    volume = _nifti_volume(data)
    while volume.ndim > 3 and volume.shape[-1] == 1:
        volume = volume[..., 0]
    if volume.ndim != 3:
        raise SourceError(
            "not_a_volume",
            f"The NIfTI file has {volume.ndim} dimensions ({' x '.join(map(str, volume.shape))}); a volume has 3. "
            "Save one volume, or send single slices as DICOM or PNG.",
        )
    if volume.dtype.kind not in "iuf":
        kind = "complex" if volume.dtype.kind == "c" else "colour"
        raise SourceError(
            "unsupported_colour_mode", f"The NIfTI file has {kind} voxels; save Hounsfield units as real numbers."
        )
    limits = DecodeLimits()
    width, height, depth = volume.shape
    if depth > limits.max_frames or width * height > limits.max_pixels or min(width, height) < 16:
        raise SourceError("not_a_volume", f"The NIfTI file's {width} x {height} x {depth} voxels are not a chest CT.")
    for index in range(depth):
        plane = np.asarray(volume[::-1, ::-1, index].T, dtype=np.float64)
        hounsfield = np.nan_to_num(plane, nan=-1024.0, posinf=-1024.0, neginf=-1024.0)
        yield window.grey(hounsfield)[np.newaxis]


def _nifti_volume(data: bytes) -> Any:
    """Load voxels (x, y, z), with axes towards the patient's right, front and head."""
    try:
        import nibabel
    except ImportError:
        raise SourceError("missing_package", "NIfTI needs nibabel: pip install 'covid-ct[nifti]'") from None
    if data[:2] == b"\x1f\x8b":
        data = _gunzipped(data)
    if data[344:347] == b"ni1":
        raise SourceError(
            "unsupported_encoding",
            "This is the .hdr file of a NIfTI pair, without its voxels. Save both as one file: "
            'python -c \'import nibabel as n; n.save(n.load("in.hdr"), "out.nii.gz")\'',
        )
    kind = nibabel.Nifti2Image if data[4:7] == b"n+2" else nibabel.Nifti1Image
    try:
        image = kind.from_bytes(data)
        return np.asanyarray((nibabel.as_closest_canonical(image) if image.ndim >= 3 else image).dataobj)
    except Exception:  # noqa: BLE001 - nibabel raises nearly anything on hostile bytes
        raise SourceError("damaged_image", "The NIfTI file is damaged.") from None


def _gunzipped(data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise SourceError("damaged_image", "The gzip file is damaged.") from None
    if len(unpacked) > MAX_FILE_BYTES:
        raise SourceError("file_too_large", f"Unpacked, the file has more than {MAX_FILE_BYTES} bytes.")
    return unpacked


def is_other_file(error: Exception) -> bool:
    """Whether the error means that the file is not an image; folders may contain other files."""
    return isinstance(error, ServiceError) and error.code == ErrorCode.UNSUPPORTED_IMAGE_TYPE
