"""Unsupported formats and kinds of JPEG, recognised by their bytes, with the command that converts them."""

import re
from typing import Final

from service.errors import ErrorCode, UnsupportedImageError, UnusableImageError, damaged_image, unsupported
from service.imaging.signatures import GZIP, is_nifti

_START_OF_FRAME: Final = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]\0")
_START_OF_SCAN: Final = b"\xff\xda"

_KINDS: Final = (
    (4, b"ftyp", "HEIC, AVIF or video", "magick in.heic out.png"),
    (4, b"jP  \r\n", "JPEG 2000", "magick in.jp2 out.png"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", "magick in.j2k out.png"),
    (4, b"JXL \r\n", "JPEG XL", "magick in.jxl out.png"),
    (0, b"\xff\x0a", "JPEG XL", "magick in.jxl out.png"),
    (0, b"%PDF", "a PDF document", "pdftoppm -r 300 -png -singlefile in.pdf out"),
    (0, b"%!PS", "PostScript", "magick -density 300 in.eps out.png"),
    (0, b"<", "text such as SVG or HTML", "magick in.svg out.png"),
    (0, b"PK\x03\x04", "a zip", ""),
    (0, GZIP, "a gzip", "gunzip in.gz"),
    (0, b"NRRD", "an NRRD volume", "c3d in.nrrd -o out.nii.gz"),
    (0, b"ObjectType", "a MetaImage volume", "c3d in.mha -o out.nii.gz"),
    (0, b"8BPS", "Photoshop", "magick in.psd out.png"),
    (0, b"v/1\x01", "OpenEXR", "magick in.exr out.png"),
    (0, b"SIMPLE  =", "FITS", "magick in.fits out.png"),
    (0, b"\0\0\1\0", "a Windows icon", "magick in.ico out.png"),
    *((0, b"P%d" % number, "a Netpbm image", "magick in.pnm out.png") for number in range(1, 8)),
)
"""Place and text of a signature, the kind, and the command."""


def unsupported_format(data: bytes, formats: tuple[str, ...], also: str = "") -> UnsupportedImageError:
    """Build the refusal of a file in none of `formats`, with its kind and the command that converts it, if known.

    Args:
        data: content of the file.
        formats: that are read, next to DICOM.
        also: a sentence on where other formats are read.
    """
    kind, command = _kind(data)
    but = f", but {kind}" if kind else ""
    convert = f" Convert it with: {command}" if command else ""
    return UnsupportedImageError(
        f"The content is not an image of a supported type{but}; send one of {', '.join(formats)}, DICOM. {also}The "
        f"type is detected from the content, not from the name.{convert}"
    )


def _kind(data: bytes) -> tuple[str, str]:
    if is_nifti(data):
        return "a NIfTI volume", ""
    for at, signature, kind, command in _KINDS:
        if data[at : at + len(signature)] == signature:
            return kind, command
    return "", ""


def unread_jpeg(data: bytes) -> UnusableImageError:
    """Build the refusal of a JPEG that Pillow does not open: damaged, or of a kind that is read in DICOM alone."""
    if not _START_OF_FRAME.search(data[: max(data.find(_START_OF_SCAN), 0)]):
        return damaged_image("its JPEG header can't be read")
    return unsupported(
        "The JPEG is lossless, JPEG-LS, hierarchical, arithmetically coded, not of 8 bits, or of an unusual number of "
        "components, which is not read.",
        "ffmpeg -i in.jpg out.png",
        ErrorCode.UNSUPPORTED_ENCODING,
    )
