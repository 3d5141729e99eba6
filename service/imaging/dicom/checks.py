"""Checks that a DICOM file holds slices of CT in a supported transfer syntax; others raise UnusableImageError."""

import re
from typing import TYPE_CHECKING, Final

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported
from service.imaging.dicom.codecs import CODECS, DECOMPRESS
from service.imaging.dicom.elements import functional_groups, text, texts
from service.imaging.dicom.reader import NATIVE, Reader

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CT_CLASSES: Final = tuple(f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2"))
"""CT image, enhanced CT image, legacy converted enhanced CT image."""

_DIRECTORY: Final = "1.2.840.10008.1.3.10"
"""Media storage directory."""

_VIDEO: Final = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10\d(\.1)?")
"""Transfer syntaxes of MPEG-2, MPEG-4 and HEVC video (PS3.6 A), which no tool converts to CT slices."""


def check_syntax(syntax: str) -> None:
    """Refuse videos and transfer syntaxes without a decoder."""
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
    """Check that a file holds a CT slice with pixels of whole numbers, most useful reason for a refusal first."""
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
    _refuse_localizer(dataset, "ImageType", "(0008,0008)")
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
    """Refuse a frame that is a localizer by the FrameType in its functional groups."""
    for group in functional_groups(dataset, index, "CTImageFrameTypeSequence"):
        _refuse_localizer(group, "FrameType", "(0008,9007)")


def _no_pixels(what: str) -> UnusableImageError:
    return UnusableImageError(f"The DICOM file {what}", code=ErrorCode.NO_PIXEL_DATA)


def _refuse_localizer(group: "Dataset", name: str, tag: str) -> None:
    if "LOCALIZER" in texts(group, name):
        raise UnusableImageError(
            f"The DICOM file is a localizer (scout), by its {name} {tag}; send an axial slice of the series.",
            code=ErrorCode.LOCALIZER,
        )
