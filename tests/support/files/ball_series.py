"""A drawn chest: two lungs and a ball of lesion at known places in the patient, in series of any orientation."""

import io
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from service.dicom_out.masks import SeriesMaps, SliceMaps
from service.imaging.lung_borders import lung_borders
from service.imaging.orientation import Turn
from service.imaging.series.geometry import UPRIGHT, SourceFrame, VolumeGeometry

BALL: Final = np.array([-70.0, 12.0, 8.0])
"""Centre in mm, in the patient's right lung."""

RADIUS: Final = 30.0
LUNGS: Final = {"left": np.array([70.0, 0.0, 0.0]), "right": np.array([-70.0, 0.0, 0.0])}
LUNG_RADII: Final = np.array([52.0, 80.0, 95.0])

SIDE: Final = 160
SPACING: Final = 2.2
CELLS: Final = 80

BALL_ML: Final = 4 / 3 * np.pi * RADIUS**3 / 1000
LUNG_ML: Final = 4 / 3 * np.pi * float(LUNG_RADII.prod()) / 1000


def series(
    *,
    row: Sequence[float] = (1, 0, 0),
    column: Sequence[float] = (0, 1, 0),
    step: Sequence[float] = (0, 0, 5.0),
    count: int = 41,
    turn: Turn = UPRIGHT,
    frames: bool = False,
    **changes: Any,
) -> VolumeGeometry:
    """A series through the whole chest; `changes` are elements of its headers: None removes one, bytes are raw."""
    directions = [np.array(each, np.float64) / np.linalg.norm(each) for each in (row, column)]
    middle = np.arange(count)[:, np.newaxis] - (count - 1) / 2
    corner = -(SIDE - 1) / 2 * SPACING * (directions[0] + directions[1])
    header = written_header(**changes)
    return VolumeGeometry(
        rows=SIDE,
        columns=SIDE,
        row_direction=directions[0],
        column_direction=directions[1],
        pixel_spacing=(SPACING, SPACING),
        positions=corner + middle * np.array(step, np.float64),
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
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.1")
    elements = {
        "StudyInstanceUID": "1.2.5",
        "SeriesInstanceUID": "1.2.6",
        "FrameOfReferenceUID": "1.2.7",
        "Modality": "CT",
        "SeriesNumber": 3,
        "PatientName": "MARKER^PATIENT",
        "PatientID": "MARKER",
        "PatientBirthDate": "19500102",
        "PatientSex": "F",
        "StudyDate": "20261130",
        "StudyTime": "101112",
        "StudyID": "S1",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": "",
        "PatientAge": "076Y",
        "StudyDescription": "Chest",
        **changes,
    }
    with disable_value_validation():  # malformed ones too
        for name, value in elements.items():
            if isinstance(value, bytes):
                tag = Tag(name)
                dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
            elif value is not None:
                setattr(dataset, name, value)
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def maps(geometry: VolumeGeometry) -> SeriesMaps:
    """Exact maps of the drawn chest: the share of lung and of lesion in each cell; None for a slice without lungs."""
    indices = range(len(geometry.positions))
    lungs, balls = ([_cells(geometry, index, what) for index in indices] for what in ("lungs", "ball"))
    slices = [SliceMaps(*each) for each in zip(lungs, balls, lung_borders(lungs), strict=True)]
    return SeriesMaps([each if each.lungs.max() > 0 else None for each in slices], geometry)


def points(geometry: VolumeGeometry, position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of all pixels of a slice in mm, (rows, columns, 3)."""
    rows, columns = np.mgrid[: geometry.rows, : geometry.columns][..., np.newaxis]
    return np.asarray(
        position
        + rows * geometry.pixel_spacing[0] * geometry.column_direction
        + columns * geometry.pixel_spacing[1] * geometry.row_direction
    )


def _cells(geometry: VolumeGeometry, index: int, what: str) -> NDArray[np.float32]:
    at = points(geometry, geometry.positions[index])
    if what == "ball":
        inside = ((at - BALL) ** 2).sum(-1) <= RADIUS**2
    else:
        inside = np.any([(((at - centre) / LUNG_RADII) ** 2).sum(-1) <= 1 for centre in LUNGS.values()], axis=0)
    picture = Image.fromarray(geometry.turn(inside).astype(np.float32))
    return np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX), np.float32)
