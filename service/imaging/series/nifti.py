"""Reads NIfTI volumes to axial slices."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import damaged_image, limit_exceeded
from service.imaging.decode import DecodeLimits, Slice, check_frames, check_size
from service.imaging.failures import decoding
from service.imaging.series.geometry import VolumeGeometry
from service.imaging.series.nifti_header import HEADER_BYTES, NiftiHeader, read_nifti_header
from service.imaging.signatures import GZIP
from service.imaging.window import LUNG, Window

_MAX_BYTES: Final = 1024**3
"""Maximum bytes of an unpacked file, twice those of 1,000 slices of 512 x 512 in 16 bits."""

_LIMITS: Final = DecodeLimits()

_AIR: Final = -1024.0


@dataclass(frozen=True, slots=True)
class NiftiVolume:
    """A volume whose axes lead to the patient's right, front and head.

    Attributes:
        voxels: (x, y, z) as stored, before `slope` and `intercept`; a view of the file's bytes.
        slope, intercept: from stored values to Hounsfield units.
        geometry: of the upright slices, from the feet to the head.
    """

    voxels: NDArray[Any]
    slope: float
    intercept: float
    geometry: VolumeGeometry

    def slices(self, window: Window = LUNG, indices: Iterable[int] | None = None) -> Iterator[Slice]:
        """Yield slices, the patient's right on the left. Infinite voxels and those that are not a number are air.

        Args:
            window: for Hounsfield units.
            indices: of the slices, from 0 at the feet; None: all.

        Yields:
            uint8 (1, H, W).
        """
        for index in range(self.voxels.shape[2]) if indices is None else indices:
            plane = np.asarray(self.voxels[::-1, ::-1, index].T, dtype=np.float64)
            hounsfield = np.nan_to_num(plane * self.slope + self.intercept, nan=_AIR, posinf=_AIR, neginf=_AIR)
            yield window.grey(hounsfield)[np.newaxis]


def open_nifti(data: bytes, limits: DecodeLimits = _LIMITS) -> NiftiVolume:
    """Read a volume. Its size is judged by the header, before the voxels are unpacked.

    Args:
        data: a whole .nii or .nii.gz file.
        limits: of the size of a slice and the number of slices.

    Raises:
        UnusableImageError: damaged, not a volume, of colours or complex numbers, or beyond a limit.
    """
    from nibabel.orientations import apply_orientation

    header = _header(data, limits)
    size = header.file_bytes
    if size > _MAX_BYTES:
        raise limit_exceeded(f"the NIfTI file announces {size} bytes, and the limit is {_MAX_BYTES}")
    body = _unpacked(data, size)
    if len(body) < size:
        raise damaged_image(f"the NIfTI file has {len(body)} of {size} bytes: it is truncated")
    voxels = np.ndarray(header.shape, header.dtype, body, header.offset, order="F")
    upright = apply_orientation(voxels, header.orientation)
    return NiftiVolume(upright, header.slope, header.intercept, _geometry(header))


def nifti_geometry(data: bytes, limits: DecodeLimits = _LIMITS) -> VolumeGeometry:
    """Read the geometry of a volume's upright slices from its header; the voxels stay packed.

    Raises:
        UnusableImageError: as in `open_nifti`, as far as the header shows it.
    """
    return _geometry(_header(data, limits))


def _header(data: bytes, limits: DecodeLimits) -> NiftiHeader:
    with decoding("the NIfTI header can't be read"):
        header = read_nifti_header(bytes(_unpacked(data, HEADER_BYTES)))
    width, height, depth = header.upright_shape
    check_size(width, height, limits)
    check_frames(depth, limits)
    return header


def _unpacked(data: bytes, size: int) -> memoryview:
    """Return the first bytes of the file, unpacked; fewer if it has fewer."""
    if data[:2] != GZIP:
        return memoryview(data)[:size]
    try:
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(data)).read(size + 1)  # to the checksum, if it is the end
        return memoryview(unpacked)[:size]
    except (OSError, EOFError, zlib.error):
        raise damaged_image("the gzip file is truncated or damaged") from None


def _geometry(header: NiftiHeader) -> VolumeGeometry:
    """Describe the upright slices."""
    from nibabel.orientations import inv_ornt_aff

    width, height, depth = header.upright_shape
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ header.affine @ inv_ornt_aff(header.orientation, header.shape)
    corners = np.stack([np.array([width - 1, height - 1, index, 1.0]) for index in range(depth)])
    row, column = -matrix[:3, 0], -matrix[:3, 1]
    between_columns, between_rows = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    return VolumeGeometry(
        rows=height,
        columns=width,
        row_direction=row / between_columns,
        column_direction=column / between_rows,
        pixel_spacing=(between_rows, between_columns),
        positions=(corners @ matrix.T)[:, :3],
    )
