"""Recognises file formats by their first bytes."""

import re
import zlib
from typing import Final

GZIP: Final = b"\x1f\x8b"
JPEG: Final = b"\xff\xd8\xff"

_FIRST_ELEMENT: Final = re.compile(
    rb"[\x02\x08]\0.\0(?:(?:UI|CS|UL|DA|TM|LO|SH|OB)|[\x02-\x80]\0\0\0)",
    re.DOTALL,  # explicit or implicit
)
"""Of a DICOM file without a preamble: group 2 or 8, with a kind of value, or a short length."""

_PICTURE: Final = re.compile(rb"\x89PNG\r\n\x1a\n|" + JPEG + rb"|.{8}WEBP|BM|GIF8", re.DOTALL)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes start like DICOM: `DICM`, also after a preamble, or a plausible first element."""
    return data[128:132] == b"DICM" or data[:6] == b"DICM\x02\x00" or _FIRST_ELEMENT.match(data) is not None


def is_tiff(data: bytes) -> bool:
    """Whether the bytes start like a TIFF."""
    return data[:4] in (b"II*\0", b"MM\0*")


def is_picture(data: bytes) -> bool:
    """Whether the bytes start like a picture of a format that is read."""
    return is_tiff(data) or _PICTURE.match(data) is not None


def is_nifti(data: bytes, name: str = "") -> bool:
    """Whether the bytes, unpacked, start like NIfTI of version 1 or 2, or are a gzip file named .nii.gz or .nii."""
    if data[:2] == GZIP:
        if name.lower().endswith((".nii.gz", ".nii")):
            return True
        try:
            data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data[:4096], 352)
        except zlib.error:
            return False
    return data[344:347] in (b"n+1", b"ni1") or data[4:7] == b"n+2"
