"""Header of a NIfTI file: size and kind of its voxels, and their places. nibabel is imported with the first one."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ErrorCode, UnusableImageError, damaged_image, unsupported
from service.imaging.series.place import MOST_MM

HEADER_BYTES: Final = 540
"""Bytes of the header of NIfTI-2; version 1 has 348."""

_QUATERNION_ROUNDING: Final = 0.002
"""Excess of a quaternion's squared length over 1 that is taken for a rounding error."""

_LEAST_MM: Final = 1e-6
"""Smaller voxels are damage."""

_LEAST_VOLUME: Final = 1e-6
"""Of a box with edges of 1 along the axes; below, two axes lead in the same direction."""

_UNIT_MM: Final = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres of a spatial unit: unknown, metre, millimetre, micrometre."""


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """Description of the voxels.

    Attributes:
        shape, dtype: of the voxels, in the order of the file.
        offset: of the voxels in the unpacked file.
        slope, intercept: from stored values to Hounsfield units.
        affine: from indices of voxels to mm towards the patient's right, front and head, float64 (4, 4).
        orientation: nibabel's, (3, 2): the axis of the patient of each axis of the file, and its direction.
    """

    shape: tuple[int, int, int]
    dtype: "np.dtype[Any]"
    offset: int
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    orientation: NDArray[np.float64]

    @property
    def file_bytes(self) -> int:
        """Size of the unpacked file up to the last voxel."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    @property
    def upright_shape(self) -> tuple[int, int, int]:
        """Number of voxels towards the patient's right, front and head."""
        x, y, z = (self.shape[axis] for axis in np.argsort(self.orientation[:, 0]))
        return x, y, z


def read_nifti_header(start: bytes) -> NiftiHeader:
    """Read and check a header.

    Args:
        start: the first `HEADER_BYTES` of the unpacked file.

    Raises:
        UnusableImageError: damaged, not a volume, or of colours or complex numbers.
        Exception: nearly any, of nibabel.
    """
    import nibabel
    from nibabel.orientations import io_orientation

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
    header = kind(start[:size], check=False)
    shape, dtype = _shape(header), header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise unsupported(
            "The NIfTI file has complex or coloured voxels; Hounsfield units are real numbers.",
            "fslmaths in.nii.gz out.nii.gz -odt float",
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        slope, intercept = 1.0, 0.0
    intercept = intercept if math.isfinite(intercept) else 0.0
    affine = _affine(header)
    orientation = np.asarray(io_orientation(affine))
    return NiftiHeader(shape, dtype, _offset(header), slope, intercept, affine, orientation)


def _shape(header: Any) -> tuple[int, int, int]:
    """Return the size of the volume; further dimensions of 1, or of 0, which some tools write, are dropped."""
    dimensions = [int(size) for size in header.get_data_shape()]
    while len(dimensions) > 3 and dimensions[-1] in (0, 1):
        dimensions.pop()
    shown = " x ".join(map(str, dimensions))
    if len(dimensions) != 3:
        raise UnusableImageError(
            f"The NIfTI file has {len(dimensions)} dimensions ({shown}); a volume has 3. Save one volume, or send "
            "single slices as DICOM or PNG.",
            code=ErrorCode.NOT_CT,
        )
    if min(dimensions) < 1:
        raise damaged_image(f"the NIfTI file announces {shown} voxels")
    return dimensions[0], dimensions[1], dimensions[2]


def _offset(header: Any) -> int:
    """Return the offset of the voxels; some tools write 0 for the end of the header."""
    offset = float(header["vox_offset"]) or float(header.single_vox_offset)
    if not offset.is_integer() or offset < header.single_vox_offset:
        raise damaged_image(f"the NIfTI header's vox_offset is {offset:g}, inside the header")
    return int(offset)


def _affine(header: Any) -> NDArray[np.float64]:
    """Return the sform if it is usable, else the qform, or in a file that has neither the voxel sizes, in mm.

    Without a form the first axis is taken to lead to the patient's left, as nibabel does.

    Raises:
        UnusableImageError: none is usable.
    """
    scale = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    forms = [form(header) for code, form in (("sform_code", _sform), ("qform_code", _qform)) if header[code] > 0]
    for form in forms or [header.get_base_affine()]:
        with np.errstate(all="ignore"):
            affine: NDArray[np.float64] = np.diag([scale, scale, scale, 1.0]) @ form
        if _is_usable(affine):
            return affine
    raise damaged_image("the NIfTI header has no usable voxel sizes or positions")


def _sform(header: Any) -> NDArray[np.float64]:
    return np.asarray(header.get_sform())


def _qform(header: Any) -> NDArray[np.float64]:
    """Return the qform, also with signs in the voxel sizes; NaN if its quaternion is too long."""
    header = header.copy()
    header.quaternion_threshold = -_QUATERNION_ROUNDING
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    try:
        return np.asarray(header.get_qform())
    except ValueError:
        return np.full((4, 4), np.nan)


def _is_usable(affine: NDArray[np.float64]) -> bool:
    """Whether a matrix from voxels to mm is finite, and its axes lead in different directions."""
    if not (np.abs(affine) < MOST_MM).all():
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(sizes.min() > _LEAST_MM and abs(np.linalg.det(affine[:3, :3] / sizes)) > _LEAST_VOLUME)
