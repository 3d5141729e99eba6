"""Reads NIfTI volumes to axial slices."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
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


@dataclass(frozen=True)
class NiftiVolume:
    """A volume whose axes lead to the patient's right, front and head; its voxels are unpacked at the first use.

    Attributes:
        data: a whole .nii or .nii.gz file.
        header: of the file.
    """

    data: bytes
    header: NiftiHeader

    @cached_property
    def voxels(self) -> NDArray[Any]:
        """Voxels (x, y, z) as stored, before slope and intercept.

        Raises:
            UnusableImageError: too large, truncated or damaged.
        """
        from nibabel.orientations import apply_orientation

        header, size = self.header, self.header.file_bytes
        if size > _MAX_BYTES:
            raise limit_exceeded(f"the NIfTI file announces {size} bytes, and the limit is {_MAX_BYTES}")
        unpacked = _unpacked(self.data, size)
        if len(unpacked) < size:
            raise damaged_image(f"the NIfTI file has {len(unpacked)} of {size} bytes: it is truncated")
        stored = np.ndarray(header.shape, header.dtype, unpacked, header.offset, order="F")
        return np.asarray(apply_orientation(stored, header.orientation))

    @cached_property
    def geometry(self) -> VolumeGeometry:
        """Geometry of the upright slices, from the feet to the head, known from the header."""
        from nibabel.orientations import inv_ornt_aff

        header, (width, height, depth) = self.header, self.header.upright_shape
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

    def slices(self, window: Window = LUNG, indices: Iterable[int] | None = None) -> Iterator[Slice]:
        """Yield slices, the patient's right on the left. Infinite voxels and those that are not a number are air.

        Args:
            window: for Hounsfield units.
            indices: of the slices, from 0 at the feet; None: all.

        Yields:
            uint8 (1, H, W).

        Raises:
            UnusableImageError: see `voxels`.
        """
        for index in range(self.voxels.shape[2]) if indices is None else indices:
            plane = np.asarray(self.voxels[::-1, ::-1, index].T, dtype=np.float64)
            hounsfield = plane * self.header.slope + self.header.intercept
            yield window.grey(np.nan_to_num(hounsfield, nan=_AIR, posinf=_AIR, neginf=_AIR))[np.newaxis]


def open_nifti(data: bytes, limits: DecodeLimits = _LIMITS) -> NiftiVolume:
    """Read the header of a volume; the voxels stay packed.

    Args:
        data: a whole .nii or .nii.gz file.
        limits: of the size of a slice and the number of slices.

    Raises:
        UnusableImageError: its header is damaged, it is not a volume, of colours or complex numbers, or beyond a limit.
    """
    with decoding("the NIfTI header can't be read"):
        header = read_nifti_header(bytes(_unpacked(data, HEADER_BYTES)))
    width, height, depth = header.upright_shape
    check_size(width, height, limits)
    check_frames(depth, limits)
    return NiftiVolume(data, header)


def _unpacked(data: bytes, size: int) -> memoryview:
    """Return the first bytes of the file, unpacked; fewer if it has fewer."""
    if data[:2] != GZIP:
        return memoryview(data)[:size]
    try:
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(data)).read(size + 1)  # to the checksum, if it is the end
        return memoryview(unpacked)[:size]
    except (OSError, EOFError, zlib.error):
        raise damaged_image("the gzip file is truncated or damaged") from None
