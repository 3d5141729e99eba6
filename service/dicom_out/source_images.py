"""The source's slices as images of one pixel, from which highdicom takes places and references."""

import copy
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds as decimal

from service.dicom_out.source import Source
from service.imaging.series.geometry import SourceFrame, VolumeGeometry

_CT: Final = "1.2.840.10008.5.1.4.1.1.2"
"""CT image storage; a frame of an enhanced CT is shown to highdicom as such an image too."""

_UNEVEN_MM: Final = 0.1
"""Difference between the distances of slices beyond which a series has no spacing."""

_SLICE: Final = "2.25."
"""Start of the UID that stands for a slice until `restore_references`; its number from 1 follows."""


def source_images(source: Source, geometry: VolumeGeometry) -> list[Dataset]:
    """Build an image of one pixel for each slice of a geometry."""
    template = copy.deepcopy(source.header)
    template.SOPClassUID, template.Modality = _CT, "CT"
    template.Rows = template.Columns = 1
    template.ImageOrientationPatient = [
        decimal(float(value)) for value in (*geometry.row_direction, *geometry.column_direction)
    ]
    template.PixelSpacing = [decimal(value) for value in geometry.pixel_spacing]
    template.SliceThickness = template.get("SliceThickness") or decimal(geometry.spacing or 1.0)
    template.pop("SpacingBetweenSlices", None)
    distances = np.diff(geometry.offsets)
    if geometry.spacing and np.ptp(distances) < _UNEVEN_MM:  # else readers of volumes take the thickness for it
        template.SpacingBetweenSlices = decimal(geometry.spacing)
    images = []
    for number, position in enumerate(geometry.positions, start=1):
        image = Dataset()
        image.update(template)  # shares its elements, so only those are set that it does not have
        image.SOPInstanceUID = f"{_SLICE}{number}"
        image.ImagePositionPatient = [decimal(float(value)) for value in position]
        images.append(image)
    return images


def slice_index(groups: Dataset) -> int:
    """Return the index of the slice that a frame of the SEG was derived from, by its functional groups."""
    return int(_reference(groups).ReferencedSOPInstanceUID.removeprefix(_SLICE)) - 1


def restore_references(result: Dataset, sources: Sequence[SourceFrame]) -> None:
    """Make a SEG refer to the source's instances and frames.

    Args:
        result: SEG of what `source_images` built.
        sources: DICOM frame of each slice.
    """
    frames = result.PerFrameFunctionalGroupsSequence
    indices = [slice_index(groups) for groups in frames]  # before any changes: segments share the item of a slice
    for groups, index in zip(frames, indices, strict=True):
        _refer(_reference(groups), sources[index], [sources[index]])
    result.ReferencedSeriesSequence[0].ReferencedInstanceSequence = _instances(sources)
    result.SourceImageSequence = _instances(sources, frames=True)


def _reference(groups: Dataset) -> Dataset:
    reference: Dataset = groups.DerivationImageSequence[0].SourceImageSequence[0]
    return reference


def _instances(sources: Iterable[SourceFrame], *, frames: bool = False) -> list[Dataset]:
    """Refer to each instance once, with the numbers of its frames if `frames`."""
    grouped: defaultdict[str, list[SourceFrame]] = defaultdict(list)
    for source in sources:
        grouped[source.sop_instance_uid].append(source)
    references = []
    for instance in grouped.values():
        reference = Dataset()
        _refer(reference, instance[0], instance if frames else [])
        references.append(reference)
    return references


def _refer(reference: Dataset, instance: SourceFrame, frames: Iterable[SourceFrame]) -> None:
    reference.ReferencedSOPClassUID = instance.sop_class_uid
    reference.ReferencedSOPInstanceUID = instance.sop_instance_uid
    numbers = [frame.frame for frame in frames if frame.frame is not None]
    if numbers:
        reference.ReferencedFrameNumber = numbers
