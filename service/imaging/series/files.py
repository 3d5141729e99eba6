"""Reads the slices of one file of a study with their places, or the reason why there is none."""

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import PurePosixPath
from typing import Final

from service.errors import ErrorCode, ServiceError, UnusableImageError
from service.imaging.decode import FORMATS, DecodeLimits, Slice, check_frames, check_size, decode, reduced, to_input
from service.imaging.dicom.elements import texts
from service.imaging.dicom.file import DAMAGED_HEADER, DicomFile, open_dicom
from service.imaging.failures import decoding
from service.imaging.other_formats import unsupported_format
from service.imaging.series.nifti import open_nifti
from service.imaging.series.place import Place, Plane, place_of_frame, slice_thickness, vector
from service.imaging.signatures import is_dicom, is_nifti, is_picture
from service.imaging.window import LUNG, Window

COMPANIONS: Final = frozenset(
    {
        ErrorCode.UNSUPPORTED_IMAGE_TYPE,
        ErrorCode.NOT_CT,
        ErrorCode.LOCALIZER,
        ErrorCode.NOT_AXIAL,
        ErrorCode.NOT_HOUNSFIELD,
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

PICTURE_SIDE: Final = 512
"""Longest side in pixels of the pictures that a study keeps: the size of a usual slice."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading the slices of a study.

    Attributes:
        input_size: side of the network's input in pixels.
        limits: of each file.
        window: for Hounsfield units.
        keep_pictures: whether to keep the slices for pictures too.
        picture_side: longest side of kept pictures in pixels, larger ones are reduced; None keeps their own size.
        keep_headers: whether to keep the DICOM headers, see `SourceFrame.header`.
        thin_mm: of slices thinner than this, only the place is read: a series of them is read in steps.
        frames: which frames of the file to read, in this order; None: all.
        refuse_screens: whether to refuse screenshots and dose reports that are stored as images.
        is_whole: False if only the start of the file is given, for the place of a thin slice.
    """

    input_size: int
    limits: DecodeLimits
    window: Window = LUNG
    keep_pictures: bool = False
    picture_side: int | None = None
    keep_headers: bool = False
    thin_mm: float = 0.0
    frames: tuple[int, ...] | None = None
    refuse_screens: bool = True
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class StudySlice:
    """A slice of a study.

    Attributes:
        place: series and position.
        frame: index in its file, from 0.
        network_input: uint8 (1, S, S); None if only the place was read.
        picture: uint8 (1, H, W), upright; None unless pictures are kept.
        has_hounsfield: whether the window of `ReadOptions` applies.
    """

    place: Place
    frame: int
    network_input: Slice | None
    picture: Slice | None
    has_hounsfield: bool


def read_study_file(data: bytes, name: str, options: ReadOptions) -> list[StudySlice | ServiceError]:
    """Read all slices of one file like `study_slices`; the reason of a file without any is the only item."""
    try:
        return list(study_slices(data, name, options))
    except ServiceError as error:
        return [error]


def study_slices(data: bytes, name: str, options: ReadOptions, first: int = 0) -> Iterator[StudySlice | ServiceError]:
    """Yield the slices of one file, or the reason of a frame without one in its place.

    Args:
        data: a whole file: DICOM with any number of frames, NIfTI, or a picture; or the start of a DICOM file.
        name: its path in the study. The pictures of a folder are taken for a series in the order of their names.
        options: see `ReadOptions`.
        first: number of slices to leave out at the start.

    Raises:
        UnsupportedImageError, UnusableImageError: the file has no slice.
    """
    if not options.is_whole:
        yield from _slice_of_start(data, options)
    elif is_nifti(data, name):
        yield from _nifti_slices(data, name, options, first)
    elif is_dicom(data):
        yield from _dicom_slices(data, options, first)
    elif not first:
        picture = decode(data, options.limits)
        path, (_, rows, columns) = PurePosixPath(name), picture.shape
        place = Place(("pictures", str(path.parent)), rows, columns, natural_order(path.name))
        yield _slice(place, 0, picture, options, has_hounsfield=False)


def refuse_other_file(data: bytes, name: str) -> None:
    """Refuse a file that is none of the kinds that are read, by its first bytes: cheap, without a decoder.

    Raises:
        UnsupportedImageError: with its kind, if it is known.
    """
    if data and not (is_dicom(data) or is_nifti(data, name) or is_picture(data)):
        raise unsupported_format(data, (*FORMATS, "NIfTI", "zip"))


def _nifti_slices(data: bytes, name: str, options: ReadOptions, first: int) -> Iterator[StudySlice]:
    volume = open_nifti(data, options.limits)
    geometry = volume.geometry
    row, column = vector(geometry.row_direction), vector(geometry.column_direction)
    frames = (range(len(geometry.positions)) if options.frames is None else options.frames)[first:]
    is_thin = options.frames is None and (geometry.spacing or math.inf) < options.thin_mm
    pictures = repeat(None) if is_thin else volume.slices(options.window, frames)
    for index, picture in zip(frames, pictures, strict=False):
        plane = Plane(vector(geometry.positions[index]), row, column, geometry.pixel_spacing)
        place = Place(("nifti", name), geometry.rows, geometry.columns, (index,), plane=plane)
        yield _slice(place, index, picture, options)


def _dicom_slices(data: bytes, options: ReadOptions, first: int) -> Iterator[StudySlice | ServiceError]:
    file = open_dicom(data)
    with decoding(DAMAGED_HEADER):
        _check_file(file, options)
        is_thin = options.frames is None and _is_thin(file, options)
        header = file.reader.series_header() if options.keep_headers and not is_thin else b""
    frames = range(file.header.frames) if options.frames is None else options.frames
    for index in frames[first:]:
        try:
            with decoding(DAMAGED_HEADER):
                place, has_hounsfield = place_of_frame(file, index, header), file.uses_window(index)
            picture = None if is_thin else file.frame(index, place.turn, options.window)[None]
            yield _slice(place, index, picture, options, has_hounsfield)
        except ServiceError as error:
            yield error


def _slice_of_start(start: bytes, options: ReadOptions) -> Iterator[StudySlice]:
    """Yield the place of a thin slice from the start of its file; nothing if the whole file must be read."""
    with suppress(ServiceError), decoding(DAMAGED_HEADER):  # the whole file has the error too, with its reason
        file = open_dicom(start, is_whole=False)
        _check_file(file, options)
        if file.header.frames == 1 and _is_thin(file, options):
            yield _slice(place_of_frame(file, 0), 0, None, options, file.uses_window(0))


def _check_file(file: DicomFile, options: ReadOptions) -> None:
    if options.refuse_screens:
        _refuse_screens(file)
    check_size(file.header.columns, file.header.rows, options.limits)
    check_frames(file.header.frames, options.limits)


def _is_thin(file: DicomFile, options: ReadOptions) -> bool:
    """Whether the slices are thinner than `thin_mm` by their SliceThickness, a hint that saves decoding."""
    thickness = slice_thickness(file)
    return thickness is not None and 0 < thickness < options.thin_mm


def _refuse_screens(file: DicomFile) -> None:
    kinds = " ".join(texts(file.dataset, "ImageType"))
    if str(file.dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURES) or _SCREEN.search(kinds):
        raise UnusableImageError(
            "The DICOM file is a screenshot or a report (secondary capture), not a slice of the scanner.",
            code=ErrorCode.SECONDARY_CAPTURE,
        )


def _slice(
    place: Place, frame: int, picture: Slice | None, options: ReadOptions, has_hounsfield: bool = True
) -> StudySlice:
    network_input = None if picture is None else to_input(picture, options.input_size)
    kept = reduced(picture, options.picture_side) if picture is not None and options.keep_pictures else None
    return StudySlice(place, frame, network_input, kept, has_hounsfield)


def natural_order(name: str) -> tuple[float | str, ...]:
    """Return a key for sorting names, in which 10 comes after 9."""
    return tuple(float(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name))
