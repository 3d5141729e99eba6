"""Reads the slices of one file of a study with their places, or the reason why there is none."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from service.errors import ErrorCode, ServiceError, UnusableImageError
from service.imaging.decode import FORMATS, DecodeLimits, Slice, check_size, decode, to_input
from service.imaging.dicom import DicomFile, is_dicom, open_dicom
from service.imaging.dicom_header import before_pixels
from service.imaging.other_formats import has_known_signature, unsupported_format
from service.imaging.series.nifti import is_nifti, open_nifti
from service.imaging.series.place import Place, Plane, place_of_frame, vector
from service.imaging.window import LUNG, Window

COMPANIONS: Final = frozenset(
    {
        ErrorCode.UNSUPPORTED_IMAGE_TYPE,
        ErrorCode.NOT_CT,
        ErrorCode.LOCALIZER,
        ErrorCode.NOT_AXIAL,
        ErrorCode.NO_PIXEL_DATA,
        ErrorCode.SECONDARY_CAPTURE,
        ErrorCode.DUPLICATE_POSITION,
    }
)
"""Reasons of files that a study normally has next to its slices; such files are skipped, not failed."""

_SECONDARY_CAPTURES: Final = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary capture images, single-frame and multi-frame (PS3.6 A)."""

_SCREEN: Final = re.compile(r"SCREEN SAVE|DOSE|\bPROT\b|REPORT")
"""In ImageType: a screenshot, dose report or protocol, which some scanners store as CT images."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading the slices of a study.

    Attributes:
        input_size: side of the network's input in pixels.
        limits: of each file.
        window: for Hounsfield units.
        keep_pictures: whether to keep the slices in their own size too.
        keep_headers: whether to keep the DICOM headers, see `SourceFrame.header`.
    """

    input_size: int
    limits: DecodeLimits
    window: Window = LUNG
    keep_pictures: bool = False
    keep_headers: bool = False


@dataclass(frozen=True, slots=True)
class StudySlice:
    """A slice of a study.

    Attributes:
        place: series and position.
        network_input: uint8 (1, S, S).
        picture: uint8 (1, H, W), upright, in its own size; None unless pictures are kept.
    """

    place: Place
    network_input: Slice
    picture: Slice | None


def read_study_file(data: bytes, name: str, options: ReadOptions) -> list[StudySlice | ServiceError]:
    """Read all slices of one file like `study_slices`; the reason of a file without any is the only item."""
    try:
        return list(study_slices(data, name, options))
    except ServiceError as error:
        return [error]


def study_slices(data: bytes, name: str, options: ReadOptions, first: int = 0) -> Iterator[StudySlice | ServiceError]:
    """Yield the slices of one file, or the reason of a frame without one in its place.

    Args:
        data: a whole file: DICOM with any number of frames, NIfTI, or a picture.
        name: its path in the study. The pictures of a folder are taken for a series in the order of their names.
        options: see `ReadOptions`.
        first: number of slices to leave out at the start.

    Raises:
        UnsupportedImageError, UnusableImageError: the file has no slice.
    """
    if is_nifti(name, data):
        yield from _nifti_slices(data, name, options, first)
    elif is_dicom(data):
        yield from _dicom_slices(data, options, first)
    elif not first:
        picture = decode(data, options.limits)
        path, (_, rows, columns) = PurePosixPath(name), picture.shape
        yield _slice(Place(("pictures", str(path.parent)), rows, columns, _natural(path.name)), picture, options)


def refuse_other_file(data: bytes, name: str) -> None:
    """Refuse a file that is none of the kinds that are read, by its first bytes: cheap, without a decoder.

    Raises:
        UnsupportedImageError: with its kind, if it is known.
    """
    if data and not (is_dicom(data) or is_nifti(name, data) or has_known_signature(data)):
        raise unsupported_format(data, FORMATS)


def _nifti_slices(data: bytes, name: str, options: ReadOptions, first: int) -> Iterator[StudySlice]:
    volume = open_nifti(data, options.limits)
    geometry = volume.geometry
    row, column = vector(geometry.row_direction), vector(geometry.column_direction)
    for index, picture in enumerate(volume.slices(options.window, first), start=first):
        plane = Plane(vector(geometry.positions[index]), row, column, geometry.pixel_spacing)
        place = Place(("nifti", name), geometry.rows, geometry.columns, (index,), plane=plane)
        yield _slice(place, picture, options)


def _dicom_slices(data: bytes, options: ReadOptions, first: int) -> Iterator[StudySlice | ServiceError]:
    file = open_dicom(data)
    _refuse_screens(file)
    check_size(file.header.columns, file.header.rows, options.limits)
    if file.header.frames > options.limits.max_frames:
        raise UnusableImageError(
            f"The file holds {file.header.frames} frames, and the limit is {options.limits.max_frames}.",
            code=ErrorCode.TOO_MANY_FRAMES,
        )
    header = before_pixels(data) if options.keep_headers else b""
    for index in range(first, file.header.frames):
        try:
            place = place_of_frame(file, index, header)
            yield _slice(place, file.frame(index, options.window)[None], options)
        except ServiceError as error:
            yield error


def _refuse_screens(file: DicomFile) -> None:
    image_type = file.dataset.get("ImageType") or []
    kinds = " ".join([image_type] if isinstance(image_type, str) else image_type)
    if str(file.dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURES) or _SCREEN.search(kinds):
        raise UnusableImageError(
            "The DICOM file is a screenshot or a report (secondary capture), not a slice of the scanner.",
            code=ErrorCode.SECONDARY_CAPTURE,
        )


def _slice(place: Place, picture: Slice, options: ReadOptions) -> StudySlice:
    return StudySlice(place, to_input(picture, options.input_size), picture if options.keep_pictures else None)


def _natural(name: str) -> tuple[float | str, ...]:
    """Split a name into text and numbers, so that 10 sorts after 9."""
    return tuple(float(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name))
