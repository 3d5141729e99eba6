"""Checks of a DICOM header: CT with pixels of a supported kind."""

import re
from typing import TYPE_CHECKING, Final

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported
from service.imaging.codecs import CODECS, DECOMPRESS
from service.imaging.dicom_header import NATIVE, Header, Reader, malformed, places, text, texts
from service.imaging.window import LUNG

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CT_CLASSES: Final = tuple(f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2"))
"""CT image, enhanced CT image, legacy converted enhanced CT image."""

_DIRECTORY: Final = "1.2.840.10008.1.3.10"
"""Media storage directory."""

_VIDEO: Final = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10\d(\.1)?")
"""Transfer syntaxes of MPEG-2, MPEG-4 and HEVC video (PS3.6 A), which no tool converts to CT slices."""

CONVERT_COLOUR: Final = "dcmj2pnm +on in.dcm out.png"
_CONVERT_DEPTH: Final = f"dcmj2pnm +on +Ww {LUNG.centre:g} {LUNG.width:g} in.dcm out.png"
"""With the lung window."""

_GREYS: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOURS: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def check_syntax(syntax: str) -> None:
    """Check the transfer syntax.

    Raises:
        UnusableImageError: a video, or not supported.
    """
    if _VIDEO.fullmatch(syntax):
        raise UnusableImageError(
            "The DICOM file holds a video (MPEG), not CT slices; send the original CT series.", code=ErrorCode.NOT_CT
        )
    if syntax not in NATIVE | CODECS.keys():
        shown = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "unreadable"
        raise unsupported(
            f"The file's transfer syntax {shown} is not supported.",
            DECOMPRESS,
            ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        )


def check_content(dataset: "Dataset", reader: Reader) -> None:
    """Check that a file holds a CT slice with pixels, most useful reason for a refusal first.

    Raises:
        UnusableImageError: truncated, not an image, not CT, a localizer, without pixels, or with floating-point ones.
    """
    sop_class = str(dataset.get("SOPClassUID") or reader.sop_class)
    is_truncated = not dataset or reader.is_truncated
    if "EncapsulatedDocument" in dataset:
        raise _no_pixels("holds a document (an encapsulated PDF or the like); send an image.")
    if sop_class == _DIRECTORY:
        raise _no_pixels("is a DICOMDIR, a list of files; send the image files that it lists.")
    modality = text(dataset, "Modality")
    if not modality and is_truncated:
        raise damaged_image("it is truncated in its header")
    if modality != "CT" and (modality or sop_class not in _CT_CLASSES):
        shown = f"modality {modality}" if re.fullmatch(r"[A-Z]{1,16}", modality) else "no known modality"
        raise UnusableImageError(
            f"The DICOM file is of {shown}, and the model knows CT slices only.", code=ErrorCode.NOT_CT
        )
    _refuse_localizer(texts(dataset, "ImageType"), "ImageType (0008,0008)")
    if reader.is_float:
        raise unsupported(
            "The DICOM file has floating-point samples; send 8 or 16 bits.",
            "paramap2itkimage -t nii --inputDICOM in.dcm --outputDirectory out",
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    if not reader.pixels:
        if is_truncated:
            raise damaged_image("it is truncated before its pixels")
        raise _no_pixels("holds no pixel data, or is cut off before its end; send an image.")


def check_frame_type(dataset: "Dataset", index: int) -> None:
    """Check the FrameType in the functional groups of a frame.

    Raises:
        UnusableImageError: it is a localizer.
    """
    for place in places(dataset, index, "CTImageFrameTypeSequence"):
        _refuse_localizer(texts(place, "FrameType"), "FrameType (0008,9007)")


def _no_pixels(what: str) -> UnusableImageError:
    return UnusableImageError(f"The DICOM file {what}", code=ErrorCode.NO_PIXEL_DATA)


def _refuse_localizer(values: list[str], element: str) -> None:
    if "LOCALIZER" in values:
        raise UnusableImageError(
            f"The DICOM file is a localizer (scout), by its {element}; send an axial slice of the series.",
            code=ErrorCode.LOCALIZER,
        )


def read_header(dataset: "Dataset", syntax: str) -> Header:
    """Read and check the description of the pixels.

    Raises:
        UnusableImageError: an element is missing or malformed, or the pixels are of an unsupported kind.
    """
    bits = _whole(dataset, "BitsAllocated")
    stored = _whole(dataset, "BitsStored", bits)
    high = _whole(dataset, "HighBit", stored - 1)
    samples = _whole(dataset, "SamplesPerPixel", 1)
    if not stored - 1 <= high < bits and bits in (8, 16):
        raise malformed("HighBit", f"is {high}, with {stored} bits stored in {bits}")
    header = Header(
        syntax=syntax,
        rows=_whole(dataset, "Rows"),
        columns=_whole(dataset, "Columns"),
        frames=_whole(dataset, "NumberOfFrames", 1) or 1,  # some writers say 0
        samples=samples,
        bits=bits,
        stored=stored,
        shift=high + 1 - stored,
        signed=_whole(dataset, "PixelRepresentation", 0) == 1,
        photometric=text(dataset, "PhotometricInterpretation") or ("MONOCHROME2" if samples == 1 else "RGB"),
        planar=_whole(dataset, "PlanarConfiguration", 0),
    )
    _check_kind(header)
    return header


def _whole(dataset: "Dataset", name: str, default: int | None = None) -> int:
    try:
        value = dataset.get(name)
        if value not in (None, ""):
            return int(value)
    except (TypeError, ValueError):
        raise malformed(name, "is not a whole number") from None
    if default is None:
        raise malformed(name, "is missing")
    return default


def _check_kind(header: Header) -> None:
    if header.bits not in (8, 16) or not 1 <= header.stored <= header.bits:
        raise unsupported(
            f"The DICOM file has {header.stored} bits in samples of {header.bits}; samples of 8 or 16 bits are read.",
            _CONVERT_DEPTH,
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    is_grey = header.samples == 1 and header.photometric in _GREYS
    is_colour = header.samples == 3 and header.bits == 8 and header.photometric in _COLOURS
    if not (is_grey or is_colour):
        raise unsupported(
            f"The DICOM file has {header.samples} samples a pixel, of {header.bits} bits, in an unsupported colour "
            "model; send grey (MONOCHROME1 or 2) or 8-bit RGB.",
            CONVERT_COLOUR,
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    if header.rows < 1 or header.columns < 1 or header.frames < 1:
        raise damaged_image(f"it announces {header.frames} frames of {header.columns} x {header.rows} pixels")
