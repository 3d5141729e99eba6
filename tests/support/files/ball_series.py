"""Geometry, headers and exact maps of series of the drawn chest, in any orientation."""

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from service.dicom_out.masks import SeriesMaps, SliceMaps
from service.imaging.dicom.file import open_dicom
from service.imaging.lung_borders import lung_borders
from service.imaging.orientation import UPRIGHT, Turn
from service.imaging.series.geometry import SourceFrame, VolumeGeometry
from tests.support.files.chest import in_ball, in_lungs, pixel_places
from tests.support.files.dicoms import ct_dataset, written

SIDE: Final = 160
SPACING: Final = 2.2
CELLS: Final = 80

MIDDLE: Final = np.array([0.0, 0.0, 150.0])
"""Middle of the lungs, and of each series."""


def series(
    *,
    row: Sequence[float] = (1, 0, 0),
    column: Sequence[float] = (0, 1, 0),
    step: Sequence[float] = (0, 0, 10.0),
    count: int = 32,
    turn: Turn = UPRIGHT,
    frames: bool = False,
    **changes: Any,
) -> VolumeGeometry:
    """A series through the whole chest; `changes` are elements of its headers: None removes one, bytes are raw."""
    directions = [np.array(direction, np.float64) / np.linalg.norm(direction) for direction in (row, column)]
    steps = np.arange(count)[:, np.newaxis] - (count - 1) / 2
    corner = MIDDLE - (SIDE - 1) / 2 * SPACING * (directions[0] + directions[1])
    header = written_header(**changes)
    return VolumeGeometry(
        rows=SIDE,
        columns=SIDE,
        row_direction=directions[0],
        column_direction=directions[1],
        pixel_spacing=(SPACING, SPACING),
        positions=corner + steps * np.array(step, np.float64),
        turn=turn,
        sources=tuple(
            SourceFrame(str(EnhancedCTImageStorage), "1.2.3", index, header)
            if frames
            else SourceFrame(str(CTImageStorage), f"1.2.3.{index}", None, header)
            for index in range(1, count + 1)
        ),
    )


def written_header(**changes: Any) -> bytes:
    """The header of a CT slice as a file that ends before the pixels."""
    elements = {
        "StudyInstanceUID": "1.2.5",
        "SeriesInstanceUID": "1.2.6",
        "FrameOfReferenceUID": "1.2.7",
        "SeriesNumber": 3,
        "PatientBirthDate": "19500102",
        "PatientSex": "F",
        "StudyDate": "20261130",
        "StudyTime": "101112",
        "StudyID": "S1",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": "",
        "PatientAge": "076Y",
        "StudyDescription": "Chest",
        "PatientID": "MARKER",
        "SOPInstanceUID": "1.2.3.1",
        **changes,
    }
    raw = {name: value for name, value in elements.items() if isinstance(value, bytes)}
    valid = {name: value for name, value in elements.items() if name not in raw}
    with disable_value_validation(), warnings.catch_warnings(action="ignore"):  # malformed ones too
        dataset = ct_dataset(np.zeros((2, 2), np.uint8), **valid)
        for name, value in raw.items():
            tag = Tag(name)
            dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
        return open_dicom(written(dataset)).reader.series_header()


def maps(geometry: VolumeGeometry) -> SeriesMaps:
    """Exact maps of the drawn chest: the share of lung and of lesion in each cell; None for a slice without lungs."""
    pixels = [_pixels(geometry, position) for position in geometry.positions]
    lungs, balls = ([_cells(geometry, inside(places)) for places in pixels] for inside in (in_lungs, in_ball))
    slices = [SliceMaps(*parts) for parts in zip(lungs, balls, lung_borders(lungs), strict=True)]
    return SeriesMaps([slice_ if slice_.lungs.max() > 0 else None for slice_ in slices], geometry)


def _pixels(geometry: VolumeGeometry, position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of all pixels of a slice in mm, (rows, columns, 3)."""
    shape = geometry.rows, geometry.columns
    return pixel_places(position, geometry.row_direction, geometry.column_direction, shape, geometry.pixel_spacing[0])


def _cells(geometry: VolumeGeometry, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    picture = Image.fromarray(geometry.turn(inside).astype(np.float32))
    return np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX), np.float32)
