"""Reads NIfTI volumes to axial slices. nibabel is imported when the first one arrives."""

import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ErrorCode, UnusableImageError, damaged_image, limit_exceeded, unsupported
from service.imaging.decode import DecodeLimits, Slice, check_size
from service.imaging.failures import decoding
from service.imaging.other_formats import is_nifti as starts_like_nifti
from service.imaging.series.geometry import VolumeGeometry
from service.imaging.series.place import MOST_MM
from service.imaging.window import LUNG, Window

MAX_VOXEL_BYTES: Final = 1024**3
"""Maximum bytes of an unpacked volume, twice those of 1,000 slices of 512 x 512 in 16 bits."""

_LIMITS: Final = DecodeLimits()

_CHUNK: Final = 1024 * 1024

_HEADER_BYTES: Final = 540
"""Bytes of the header of NIfTI-2; version 1 has 348."""

_HEADER: Final = "the NIfTI header can't be read"

_AIR: Final = -1024.0

_GZIP: Final = b"\x1f\x8b"

_LONGEST_QUATERNION: Final = 1.001
"""Larger excess lengths of a quaternion are not rounding errors."""

_LEAST_MM: Final = 1e-6
"""Smaller voxels are damage."""

_LEAST_VOLUME: Final = 1e-6
"""Of a box with edges of 1 along the axes; below, two axes lead in the same direction."""

_UNIT_MM: Final = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres of a spatial unit: unknown, metre, millimetre, micrometre."""


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

    @property
    def depth(self) -> int:
        """Number of slices."""
        return int(self.voxels.shape[2])

    def slices(self, window: Window = LUNG, indices: Iterable[int] | None = None) -> Iterator[Slice]:
        """Yield slices, the patient's right on the left. Infinite voxels and those that are not a number are air.

        Args:
            window: for Hounsfield units.
            indices: of the slices, from 0 at the feet; None: all.

        Yields:
            uint8 (1, H, W).
        """
        for index in range(self.depth) if indices is None else indices:
            plane = np.asarray(self.voxels[::-1, ::-1, index].T, dtype=np.float64)
            hounsfield = np.nan_to_num(plane * self.slope + self.intercept, nan=_AIR, posinf=_AIR, neginf=_AIR)
            yield window.grey(hounsfield)[np.newaxis]


def is_nifti(name: str, data: bytes) -> bool:
    """Whether the bytes, unpacked, start like a NIfTI file, or are a gzip file named .nii.gz or .nii."""
    return starts_like_nifti(data) or (data[:2] == _GZIP and name.lower().endswith((".nii.gz", ".nii")))


def open_nifti(data: bytes, limits: DecodeLimits = _LIMITS, max_bytes: int = MAX_VOXEL_BYTES) -> NiftiVolume:
    """Read a volume. Its size is judged by the header, before the voxels are unpacked.

    Args:
        data: a whole .nii or .nii.gz file.
        limits: of the size of a slice and the number of slices.
        max_bytes: of the unpacked file.

    Raises:
        UnusableImageError: damaged, not a volume, of colours or complex numbers, or beyond a limit.
    """
    with decoding(_HEADER):
        layout = _layout(data, limits)
    size = layout.offset + math.prod(layout.shape) * layout.dtype.itemsize
    if size > max_bytes:
        raise limit_exceeded(f"the NIfTI file announces {size} bytes, and the limit is {max_bytes}")
    body = _start(data, size)
    if len(body) < size:
        raise damaged_image(f"the NIfTI file has {len(body)} of {size} bytes: it is truncated")
    voxels = np.frombuffer(body, layout.dtype, math.prod(layout.shape), layout.offset)
    return _upright(layout, voxels.reshape(layout.shape, order="F"))


def nifti_geometry(data: bytes, limits: DecodeLimits = _LIMITS) -> VolumeGeometry:
    """Read the geometry of a volume's upright slices from its header; the voxels stay packed.

    Raises:
        UnusableImageError: as in `open_nifti`, as far as the header shows it.
    """
    with decoding(_HEADER):
        layout = _layout(data, limits)
        depth_last = [layout.shape[axis] for axis in _axes(layout.orientation)]
        return _geometry(_upright_affine(layout), tuple(depth_last))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Header of a file.

    Attributes:
        header: of nibabel.
        shape, dtype: of the voxels, in the order of the file.
        affine: from voxels to mm, float64 (4, 4).
        orientation: nibabel's, (3, 2): the axis of the patient of each axis, and its direction.
        offset: of the voxels in the unpacked file.
    """

    header: Any
    shape: tuple[int, int, int]
    dtype: "np.dtype[Any]"
    affine: NDArray[np.float64]
    orientation: NDArray[np.float64]
    offset: int


def _layout(data: bytes, limits: DecodeLimits) -> _Layout:
    from nibabel.orientations import io_orientation

    header = _header(bytes(_start(data, _HEADER_BYTES)))
    affine = _affine(header)
    layout = _Layout(
        header, _shape(header), header.get_data_dtype(), affine, np.asarray(io_orientation(affine)), _offset(header)
    )
    _check_slices([layout.shape[axis] for axis in _axes(layout.orientation)], limits)
    if layout.dtype.kind not in "iuf":
        raise unsupported(
            "The NIfTI file has complex or coloured voxels; Hounsfield units are real numbers.",
            "fslmaths in.nii.gz out.nii.gz -odt float",
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    return layout


def _axes(orientation: NDArray[np.float64]) -> list[int]:
    """List the axes of the file that lead to the patient's right, front and head."""
    return sorted(range(3), key=lambda axis: orientation[axis][0])


def _start(data: bytes, size: int) -> memoryview:
    """Return the first bytes of the file, unpacked; fewer if it has fewer."""
    packed = memoryview(data)
    if data[:2] != _GZIP:
        return packed[:size]
    unpacked, count, at = bytearray(size), 0, 0
    try:
        while at < len(packed) and count < size:  # a gzip file may have several members
            stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
            while not stream.eof and count < size and (stream.unconsumed_tail or at < len(packed)):
                chunk: bytes | memoryview = stream.unconsumed_tail
                if not chunk:
                    chunk = packed[at : at + _CHUNK]
                    at += len(chunk)
                part = stream.decompress(chunk, min(_CHUNK, size - count))
                unpacked[count : count + len(part)] = part
                count += len(part)
            at -= len(stream.unused_data)
    except zlib.error:
        raise damaged_image("the gzip file can't be unpacked") from None
    return memoryview(unpacked)[:count]


def _header(start: bytes) -> Any:
    import nibabel

    if start[344:347] == b"ni1":
        raise unsupported(
            "This is the .hdr file of a NIfTI pair, without its voxels.",
            """python -c 'import nibabel as n; n.save(n.load("in.hdr"), "out.nii.gz")'""",
            ErrorCode.UNSUPPORTED_ENCODING,
        )
    kind = nibabel.Nifti2Header if start[4:7] == b"n+2" else nibabel.Nifti1Header
    size = kind.template_dtype.itemsize
    if len(start) < size:
        raise damaged_image("the NIfTI header is truncated")
    try:
        header = kind(start[:size], check=False)
        header.get_data_dtype()
    except Exception:  # noqa: BLE001 - nibabel raises nearly anything on hostile bytes
        raise damaged_image(_HEADER) from None
    return header


def _offset(header: Any) -> int:
    """Return the offset of the voxels; some tools write 0 for the end of the header."""
    least = header.single_vox_offset
    offset = float(header["vox_offset"])
    if offset == 0:
        return int(least)
    if not offset.is_integer() or offset < least:
        raise damaged_image(f"the NIfTI header's vox_offset is {offset:g}, inside the header")
    return int(offset)


def _shape(header: Any) -> tuple[int, int, int]:
    """Return the size of the volume; further dimensions of 1, or of 0, which some tools write, are dropped."""
    count = int(header["dim"][0])
    dimensions = [int(size) for size in header["dim"][1 : 1 + max(0, count)]]
    while len(dimensions) > 3 and dimensions[-1] in (0, 1):
        dimensions.pop()
    if len(dimensions) != 3:
        raise UnusableImageError(
            f"The NIfTI file has {len(dimensions)} dimensions ({' x '.join(map(str, dimensions))}); a volume has 3. "
            "Save one volume, or send single slices as DICOM or PNG.",
            code=ErrorCode.NOT_CT,
        )
    if min(dimensions) < 1:
        raise damaged_image(f"the NIfTI file announces {' x '.join(map(str, dimensions))} voxels")
    return dimensions[0], dimensions[1], dimensions[2]


def _upright(layout: _Layout, voxels: NDArray[Any]) -> NiftiVolume:
    """Turn the axes to the patient's right, front and head."""
    from nibabel.orientations import apply_orientation

    turned = apply_orientation(voxels, layout.orientation)
    slope, intercept = float(layout.header["scl_slope"]), float(layout.header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        slope, intercept = 1.0, 0.0
    geometry = _geometry(_upright_affine(layout), turned.shape)
    return NiftiVolume(turned, slope, intercept if math.isfinite(intercept) else 0.0, geometry)


def _upright_affine(layout: _Layout) -> NDArray[np.float64]:
    from nibabel.orientations import inv_ornt_aff

    return np.asarray(layout.affine @ inv_ornt_aff(layout.orientation, layout.shape))


def _check_slices(shape: list[int], limits: DecodeLimits) -> None:
    width, height, depth = shape
    check_size(width, height, limits)
    if depth > limits.max_frames:
        raise UnusableImageError(
            f"The NIfTI file holds {depth} slices, and the limit is {limits.max_frames}.",
            code=ErrorCode.TOO_MANY_FRAMES,
        )


def _affine(header: Any) -> NDArray[np.float64]:
    """Return the matrix (4, 4) from voxels to mm: the sform if it is usable, else the qform, else the voxel sizes.

    Without a usable form the first axis is taken to lead to the patient's left, as nibabel does.

    Raises:
        UnusableImageError: none is usable.
    """
    scale = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    forms = [read for code, read in (("sform_code", _sform), ("qform_code", _qform)) if int(header[code]) > 0]
    for read in (*forms, _voxel_sizes):
        with np.errstate(all="ignore"):
            affine: NDArray[np.float64] = np.diag([scale, scale, scale, 1.0]) @ read(header)
        if _is_usable(affine):
            return affine
    raise damaged_image("the NIfTI header has no usable voxel sizes or positions")


def _is_usable(affine: NDArray[np.float64]) -> bool:
    """Whether a matrix from voxels to mm is finite, and its axes lead in different directions."""
    if not (np.abs(affine) < MOST_MM).all():
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(sizes.min() > _LEAST_MM and abs(np.linalg.det(affine[:3, :3] / sizes)) > _LEAST_VOLUME)


def _voxel_sizes(header: Any) -> NDArray[np.float64]:
    return np.asarray(header.get_base_affine(), dtype=np.float64)


def _sform(header: Any) -> NDArray[np.float64]:
    return np.asarray(header.get_sform(), dtype=np.float64)


def _qform(header: Any) -> NDArray[np.float64]:
    """Return the qform; a quaternion that rounding made slightly longer than 1 is shortened."""
    header = header.copy()
    names = ("quatern_b", "quatern_c", "quatern_d")
    length = float(np.linalg.norm([float(header[name]) for name in names]))
    if 1 < length < _LONGEST_QUATERNION:
        for name in names:
            header[name] = float(header[name]) / length
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except Exception:  # noqa: BLE001 - as in _header
        return np.full((4, 4), np.nan)


def _geometry(affine: NDArray[np.float64], shape: tuple[int, ...]) -> VolumeGeometry:
    """Describe the upright slices of a volume whose axes lead to the right, front and head."""
    width, height, depth = shape
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
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
