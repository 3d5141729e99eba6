"""Volumes of CT as grey slices: NIfTI and DICOM series, read like the service reads them, and LUNA16's MetaImage."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.imaging.decode import DecodeLimits
from service.imaging.series.files import ReadOptions, StudySlice, read_study_file
from service.imaging.series.grouping import group_series
from service.imaging.series.nifti import open_nifti
from service.imaging.signatures import is_nifti
from service.imaging.window import LUNG, Window
from training.data.ct_slices import SLICE_SIZE
from training.data.masks import Mask
from training.errors import TrainingError
from training.run.progress import progress, warn

Picture: TypeAlias = NDArray[np.uint8]

_OPTIONS: Final = ReadOptions(SLICE_SIZE, DecodeLimits(), LUNG, keep_pictures=True)
_PUBLISHED_GREY: Final = Window(127.5, 255)
"""Of volumes that were published as grey values instead of Hounsfield units."""

_ANY_LABEL: Final = Window(0.5, 1)
"""Of masks: white from 1."""


class Volume(NamedTuple):
    """Slices from the feet to the head (reverse for MetaImage that was stored so), uint8 (H, W) each.

    Attributes:
        name: path of its file below the folder, without endings; for DICOM, the number of the series.
    """

    name: str
    slices: list[Picture]


def read_volumes(folder: Path) -> Iterator[Volume]:
    """Read every volume below a folder: NIfTI and MetaImage files, and the series of all DICOM files together.

    Files that are none of these are counted in a warning.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: there is no such folder")
    loose: list[StudySlice] = []
    skipped = 0
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    for path in progress(paths, f"reading {folder.name}", "file"):
        if path.suffix == ".mhd":
            yield Volume(_name(path, folder), _read_metaimage(path))
        elif path.suffix != ".raw":
            data = path.read_bytes()
            if is_nifti(data) or path.name.lower().endswith((".nii", ".nii.gz")):
                yield Volume(_name(path, folder), _read_nifti(path, data))
            else:
                read = read_study_file(data, path.relative_to(folder).as_posix(), _OPTIONS)
                loose += [slice_ for slice_ in read if isinstance(slice_, StudySlice)]
                skipped += any(isinstance(slice_, ServiceError) for slice_ in read)
    for number, series in enumerate(group_series([slice_.place for slice_ in loose])):
        pictures = [loose[place].picture for place in series.slices]
        yield Volume(f"series-{number:03}", [picture[0] for picture in pictures if picture is not None])
    if skipped:
        warn(f"{folder}: {skipped} files skipped, which are no slices")


def _name(path: Path, folder: Path) -> str:
    """Name a volume by its sub-folders too, since many data sets have a file `ct.nii.gz` for each patient."""
    return path.relative_to(folder).with_name(re.sub(r"(?i)\.(nii|nii\.gz|mhd)$", "", path.name)).as_posix()


def read_mask_volume(path: Path) -> list[Mask]:
    """Read a NIfTI file of masks, in the order of the slices of its volume: inside from 1."""
    try:
        return [slice_[0] > 0 for slice_ in open_nifti(path.read_bytes()).slices(_ANY_LABEL)]
    except ServiceError as error:
        raise TrainingError(f"{path}: {error.detail}") from error


def _read_nifti(path: Path, data: bytes) -> list[Picture]:
    try:
        volume = open_nifti(data)
        slope, intercept = volume.header.slope, volume.header.intercept
        low, high = (float(value) * slope + intercept for value in (volume.voxels.min(), volume.voxels.max()))
        window = _PUBLISHED_GREY if low >= 0 and high <= 255 else LUNG
        return [slice_[0] for slice_ in volume.slices(window)]
    except ServiceError as error:
        raise TrainingError(f"{path}: {error.detail}") from error


def _read_metaimage(path: Path) -> list[Picture]:
    """Read LUNA16's format: a text header and a file of int16 Hounsfield units."""
    try:
        lines = [line.partition("=") for line in path.read_text(encoding="ascii").splitlines()]
        header = {name.strip(): value.strip() for name, _, value in lines}
        columns, rows, slices = (int(size) for size in header["DimSize"].split())
        volume = np.fromfile(path.with_name(header["ElementDataFile"]), "<i2").reshape(slices, rows, columns)
        matrix = header.get("TransformMatrix", "1 0 0 0 1 0 0 0 1").split()
        # the axes go to the left and to the back unless the matrix says otherwise, as in two of LUNA16's scans
        x, y = (float(matrix[place]) for place in (0, 4))
    except (OSError, UnicodeDecodeError, KeyError, ValueError, IndexError) as error:
        raise TrainingError(f"{path}: not a complete MetaImage file: {error}") from error
    if header.get("ElementType") != "MET_SHORT":
        raise TrainingError(f"{path}: its samples are {header.get('ElementType')}; LUNA16's are MET_SHORT")
    upright = volume[:, :: 1 if y > 0 else -1, :: 1 if x > 0 else -1]
    return [LUNG.grey(slice_.astype(np.float64)) for slice_ in upright]
