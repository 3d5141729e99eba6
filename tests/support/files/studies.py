"""Files of drawn studies: series of CT slices of the drawn chest, in any orientation."""

import gzip
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import EnhancedCTImageStorage

from tests.support.files.chest import hounsfield, pixel_places
from tests.support.files.dicoms import ct_dataset, groups, written

SIDE = 64
"""Pixels of a slice."""

PIXEL_MM = 5.0

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Directions of an upright axial slice."""


def positions(heights: Sequence[float], tilt_mm: float = 0.0) -> list[tuple[float, float, float]]:
    """Position of the first pixel at each height; with `tilt_mm` each slice is moved backwards against the last."""
    first = -(SIDE - 1) / 2 * PIXEL_MM
    return [(first, first + index * tilt_mm, height) for index, height in enumerate(heights)]


def stored(position: Sequence[float], directions: Sequence[float] = AXIAL) -> NDArray[np.uint16]:
    """Samples of a slice with intercept -1024, uint16 (SIDE, SIDE)."""
    points = pixel_places(position, directions[:3], directions[3:], (SIDE, SIDE), PIXEL_MM)
    return (hounsfield(points) + 1024).astype(np.uint16)


def series(
    heights: Sequence[float],
    uid: str = "1.2.3",
    directions: Sequence[float] = AXIAL,
    places: Sequence[Sequence[float]] | None = None,
    **changes: Any,
) -> list[bytes]:
    """A series of single-frame DICOM files at these heights in mm, or at `places`, positions of first pixels."""
    files = []
    for number, position in enumerate(places or positions(heights)):
        dataset = ct_dataset(
            stored(position, directions),
            StudyInstanceUID="1.2",
            SeriesInstanceUID=uid,
            FrameOfReferenceUID="1.2.9",
            SOPInstanceUID=f"{uid}.{number + 1}",
            InstanceNumber=number + 1,
            ImagePositionPatient=list(position),
            ImageOrientationPatient=list(directions),
            PixelSpacing=[PIXEL_MM, PIXEL_MM],
            SliceThickness=99,
        )
        for name, value in changes.items():
            setattr(dataset, name, value)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        files.append(written(dataset))
    return files


def enhanced(heights: Sequence[float], thickness: float | None = None) -> bytes:
    """The same series as one enhanced multi-frame file."""
    places = positions(heights)
    dataset = ct_dataset(
        np.stack([stored(place) for place in places]),
        SOPClassUID=EnhancedCTImageStorage,
        StudyInstanceUID="1.2",
        SeriesInstanceUID="1.2.3",
        FrameOfReferenceUID="1.2.9",
        SOPInstanceUID="1.2.3.1",
    )
    measures: dict[str, Any] = {"PixelSpacing": [PIXEL_MM, PIXEL_MM]}
    if thickness is not None:
        measures["SliceThickness"] = thickness
    orientation = {"ImageOrientationPatient": list(AXIAL)}
    dataset.SharedFunctionalGroupsSequence = [
        groups(PixelMeasuresSequence=measures, PlaneOrientationSequence=orientation)
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        groups(PlanePositionSequence={"ImagePositionPatient": list(place)}) for place in places
    ]
    return written(dataset)


def volume(heights: Sequence[float]) -> nibabel.Nifti1Image:
    """The same chest as NIfTI in int16, with a step along the body from the first two heights."""
    slices = np.stack([stored(position).astype(np.int16) - 1024 for position in positions(heights)])
    first = (SIDE - 1) / 2 * PIXEL_MM
    affine = np.diag([-PIXEL_MM, -PIXEL_MM, heights[1] - heights[0], 1.0])
    affine[:3, 3] = first, first, heights[0]
    return nibabel.Nifti1Image(slices.transpose(2, 1, 0), affine)


def zipped(members: Mapping[str, bytes] | Sequence[bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members; those of a sequence are named by their number."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items() if isinstance(members, Mapping) else enumerate(members):
            archive.writestr(str(name), data)
    return file.getvalue()


def gzipped(data: bytes) -> bytes:
    """A gzip of these bytes."""
    return gzip.compress(data, mtime=0)
