"""NIfTI masks of a series, for slices that came without DICOM headers."""

import gzip
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.dicom_out.masks import Segment, SeriesMaps
from service.imaging.series.geometry import VolumeGeometry

FILES: Final = {"lungs.nii.gz": (Segment.LEFT_LUNG, Segment.RIGHT_LUNG), "lesion.nii.gz": (Segment.LESION,)}
"""Names of the files, and the segments in each: the first one has the value 1."""

_COMPRESSION: Final = 3
"""Compression level of zlib; higher ones take far longer and save a few per cent."""


def nifti_masks(maps: SeriesMaps) -> dict[str, bytes]:
    """Write the masks of a volume as NIfTI, in the place of the volume.

    Returns:
        A .nii.gz file for each name of `FILES`: uint8 (columns, rows, slices).
    """
    return {name: _file(_labels(maps, segments), maps.geometry) for name, segments in FILES.items()}


def _labels(maps: SeriesMaps, segments: Sequence[Segment]) -> NDArray[np.uint8]:
    labels = np.zeros((len(maps.slices), maps.geometry.rows, maps.geometry.columns), np.uint8)
    for index, plane in enumerate(labels):
        masks = maps.masks(index)
        for value, segment in enumerate(segments, start=1):
            plane[masks[segment - 1]] = value
    return labels.T


def _file(labels: NDArray[np.uint8], geometry: VolumeGeometry) -> bytes:
    import nibabel

    image = nibabel.Nifti1Image(labels, geometry.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"covid-ct, research only: cells enlarged to voxels"
    return gzip.compress(image.to_bytes(), _COMPRESSION, mtime=0)
