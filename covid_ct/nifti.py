"""NIfTI volumes to axial slices. nibabel is imported when the first one arrives."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from covid_ct.errors import SourceError
from service.imaging.decode import DecodeLimits, Slice
from service.imaging.other_formats import is_nifti as starts_like_nifti
from service.imaging.window import Window


def is_nifti(name: str, data: bytes) -> bool:
    """Whether the bytes, unpacked, start like a NIfTI file; a gzip file called .nii.gz or .nii counts too."""
    return starts_like_nifti(data) or (data[:2] == b"\x1f\x8b" and name.lower().endswith((".nii.gz", ".nii")))


def nifti_slices(data: bytes, window: Window, max_bytes: int) -> Iterator[Slice]:
    """Yield axial slices from feet to head in radiological view: the patient's right is at the left.

    Infinite voxels and those that are not a number are air.
    """
    volume = _nifti_volume(data, max_bytes)
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


def _nifti_volume(data: bytes, max_bytes: int) -> Any:
    """Load voxels (x, y, z), with axes towards the patient's right, front and head."""
    import nibabel

    if data[:2] == b"\x1f\x8b":
        data = _gunzipped(data, max_bytes)
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


def _gunzipped(data: bytes, max_bytes: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error):
        raise SourceError("damaged_image", "The gzip file is damaged.") from None
    if len(unpacked) > max_bytes:
        raise SourceError("file_too_large", f"Unpacked, the file has more than {max_bytes} bytes.")
    return unpacked
