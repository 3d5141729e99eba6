"""Checks of a DICOM header: CT, axial, with pixels of a supported kind."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.errors import ErrorCode, UnusableImageError, damaged_image, malformed_element, unsupported
from service.imaging.dicom_header import BIG_ENDIAN, NATIVE, PIXEL_DATA, Elements, numbers
from service.imaging.window import LUNG

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CT_CLASSES: Final = tuple(f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2"))
"""CT image, enhanced CT image, legacy converted enhanced CT image."""

_DIRECTORY: Final = "1.2.840.10008.1.3.10"
"""Media storage directory."""

_AXIAL: Final = 0.8
"""Cosine between the normal of a slice and the body's axis: 37 degrees; a gantry tilts up to 30."""

CONVERT_COLOUR: Final = "dcmj2pnm +on in.dcm out.png"
_CONVERT_DEPTH: Final = f"dcmj2pnm +on +Ww {LUNG.centre:g} {LUNG.width:g} in.dcm out.png"
"""With the lung window."""

_COLOURS: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True, slots=True)
class Header:
    """Description of the pixels, known before decoding.

    Attributes:
        syntax: UID of the transfer syntax.
        rows, columns, frames: size according to the header.
        samples: 1 for grey, 3 for colour.
        bits: bits of a sample in memory, 8 or 16.
        stored: number of these bits that are used.
        shift: number of unused bits below them.
        signed: whether samples are two's complement.
        photometric: photometric interpretation of a sample.
        planar: 1 if colour planes are stored one after another.
        swapped: whether 8-bit samples are the bytes of big-endian words.
    """

    syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    bits: int
    stored: int
    shift: int
    signed: bool
    photometric: str
    planar: int
    swapped: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """Steps that turn a slice upright: the patient's front at the top, the patient's right on the left.

    Attributes:
        transpose: whether to exchange rows and columns; the first step.
        flip_rows, flip_columns: whether to reverse the order of rows and of columns.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        """Turn an array of shape (rows, columns)."""
        turned = grey.T if self.transpose else grey
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def undo(self, upright: np.ndarray) -> np.ndarray:
        """Turn an upright array of shape (..., rows, columns) back."""
        turned = upright[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return turned.swapaxes(-1, -2) if self.transpose else turned


def check_header(elements: Elements, *, is_whole: bool = True) -> Header:
    """Check the header, most useful reason for a refusal first.

    Args:
        elements: of the file.
        is_whole: whether all pixels must be there.

    Raises:
        UnusableImageError: not CT, a localizer, without pixels, truncated, or unsupported.
    """
    dataset = elements.dataset
    _check_content(elements)
    if not dataset.get("PixelData"):
        if elements.truncated:
            raise damaged_image("it is truncated before its pixels")
        raise UnusableImageError(
            "The DICOM file holds no pixel data, or is cut off before its end; send an image.",
            code=ErrorCode.NO_PIXEL_DATA,
        )
    header = _header(elements)
    _check_kind(header)
    if is_whole:
        _check_length(header, len(dataset.PixelData))
    return header


def check_frame_type(groups: list["Dataset"]) -> None:
    """Check the FrameType in the functional groups of a frame.

    Args:
        groups: items of CTImageFrameTypeSequence; may be empty.

    Raises:
        UnusableImageError: it is a localizer.
    """
    for group in groups:
        _refuse_localizer(group.get("FrameType"), "FrameType (0008,9007)")


def upright(dataset: "Dataset", groups: list["Dataset"]) -> Turn:
    """Read the orientation of a slice, from its functional groups or else from the file.

    Returns:
        The steps that turn it upright: none if it has no orientation.

    Raises:
        UnusableImageError: it is not axial.
    """
    for place in (*groups, dataset):
        values = numbers(place, "ImageOrientationPatient", 0x00200037)
        if len(values) != 6:
            continue
        row, column = np.array(values[:3]), np.array(values[3:])
        if np.abs([row @ row - 1, column @ column - 1, row @ column]).max() > 0.02:
            continue  # no directions
        if abs(np.cross(row, column)[2]) < _AXIAL:
            raise UnusableImageError(
                "The slice is not axial by its ImageOrientationPatient (0020,0037), and the model knows axial slices "
                "only; send an axial slice of the original series.",
                code=ErrorCode.NOT_AXIAL,
            )
        transpose = bool(abs(row[0]) < abs(row[1]))
        if transpose:
            row, column = column, row
        return Turn(transpose, bool(column[1] < 0), bool(row[0] < 0))
    return Turn()


def _check_content(elements: Elements) -> None:
    dataset = elements.dataset
    if 0x00420011 in dataset:
        raise UnusableImageError(
            "The DICOM file holds a document (an encapsulated PDF or the like), not an image.",
            code=ErrorCode.NO_PIXEL_DATA,
        )
    if elements.sop_class == _DIRECTORY:
        raise UnusableImageError(
            "The DICOM file is a DICOMDIR, a list of files; send the image files that it lists.",
            code=ErrorCode.NO_PIXEL_DATA,
        )
    modality = str(dataset.get("Modality") or "").strip(" \0")
    if not modality and elements.truncated:
        raise damaged_image("it is truncated in its header")
    if modality != "CT" and (modality or elements.sop_class not in _CT_CLASSES):
        found = f"modality {modality}" if re.fullmatch(r"[A-Z]{1,16}", modality) else "no known modality"
        raise UnusableImageError(
            f"The DICOM file is of {found}, and the model knows CT slices only.", code=ErrorCode.NOT_CT
        )
    _refuse_localizer(dataset.get("ImageType"), "ImageType (0008,0008)")
    if 0x7FE00008 in dataset or 0x7FE00009 in dataset:
        raise unsupported(
            "The DICOM file has floating-point samples; send 8 or 16 bits.",
            "paramap2itkimage -t nii --inputDICOM in.dcm --outputDirectory out",
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )


def _refuse_localizer(values: Any, element: str) -> None:
    if "LOCALIZER" in ([values] if isinstance(values, str) else list(values or [])):
        raise UnusableImageError(
            f"The DICOM file is a localizer (scout), by its {element}; send an axial slice of the series.",
            code=ErrorCode.LOCALIZER,
        )


def _header(elements: Elements) -> Header:
    dataset = elements.dataset
    bits = _whole(dataset, "BitsAllocated", 0x00280100)
    stored = _whole(dataset, "BitsStored", 0x00280101, bits)
    high = _whole(dataset, "HighBit", 0x00280102, stored - 1)
    samples = _whole(dataset, "SamplesPerPixel", 0x00280002, 1)
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip(" \0")
    if not stored - 1 <= high < bits and bits in (8, 16):
        raise malformed_element("HighBit", 0x00280102, f"is {high}, with {stored} bits stored in {bits}")
    return Header(
        syntax=elements.syntax,
        rows=_whole(dataset, "Rows", 0x00280010),
        columns=_whole(dataset, "Columns", 0x00280011),
        frames=_whole(dataset, "NumberOfFrames", 0x00280008, 1),
        samples=samples,
        bits=bits,
        stored=stored,
        shift=high + 1 - stored,
        signed=_whole(dataset, "PixelRepresentation", 0x00280103, 0) == 1,
        photometric=photometric or ("MONOCHROME2" if samples == 1 else "RGB"),
        planar=_whole(dataset, "PlanarConfiguration", 0x00280006, 0),
        swapped=elements.syntax == BIG_ENDIAN and bits == 8 and dataset[PIXEL_DATA].VR == "OW",
    )


def _whole(dataset: "Dataset", name: str, tag: int, default: int | None = None) -> int:
    try:
        value = dataset.get(name)
        if value in (None, ""):
            if default is None:
                raise malformed_element(name, tag, "is missing")
            return default
        return int(value)
    except (TypeError, ValueError):
        raise malformed_element(name, tag, "is not a whole number") from None


def _check_kind(header: Header) -> None:
    if header.bits not in (8, 16) or not 1 <= header.stored <= header.bits:
        raise unsupported(
            f"The DICOM file has {header.stored} bits in samples of {header.bits}; samples of 8 or 16 bits are read.",
            _CONVERT_DEPTH,
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    grey = header.samples == 1 and header.photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    colour = header.samples == 3 and header.bits == 8 and header.photometric in _COLOURS
    if not (grey or colour):
        raise unsupported(
            f"The DICOM file has {header.samples} samples a pixel, of {header.bits} bits, in an unsupported colour "
            "model; send grey (MONOCHROME1 or 2) or 8-bit RGB.",
            CONVERT_COLOUR,
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    if header.rows < 1 or header.columns < 1 or header.frames < 1:
        raise damaged_image(f"it announces {header.frames} frames of {header.columns} x {header.rows} pixels")


def _check_length(header: Header, found: int) -> None:
    if header.syntax not in NATIVE:
        return
    subsampled = header.photometric == "YBR_FULL_422"
    pixels = header.rows * header.columns * header.frames
    needed = pixels * 2 if subsampled else pixels * header.samples * (header.bits // 8)
    if found < needed:
        raise damaged_image(f"it has {found} of {needed} bytes of pixels: it is truncated")
