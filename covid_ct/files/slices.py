"""Slices of one file: a picture as it is, DICOM and NIfTI with the place of each slice."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

from service.errors import ServiceError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.series.files import ReadOptions, StudySlice
from service.imaging.signatures import is_dicom, is_nifti
from service.imaging.window import LUNG, Window


@dataclass(frozen=True, slots=True)
class SourceSlice:
    """A slice of a file.

    Attributes:
        name: of the file, with #index if the file has several slices or is a volume.
        data: bytes of a file with this slice alone; empty if it has others, or another window than its own applies.
        window: for its Hounsfield units; None if it has none.
        read: place and pixels of a slice of DICOM or NIfTI.
        error: why there is no slice.
    """

    name: str
    data: bytes = b""
    window: Window | None = None
    read: StudySlice | None = None
    error: Exception | None = None


def slices_of(
    data: bytes, name: str, decoders: BlockingCage, options: ReadOptions, *, named: bool = False
) -> Iterator[SourceSlice]:
    """Yield the slices of a file.

    Args:
        data: a whole file.
        name: its path.
        decoders: read it, in a process of their own.
        options: for reading.
        named: whether the user named the file; a screenshot in a folder is no slice.

    Raises:
        ServiceError: the file has no (more) slices.
    """
    is_volume = is_nifti(data, name)
    if not is_volume and not is_dicom(data):
        yield SourceSlice(name, data)
        return
    slices = decoders.study_slices(data, name, replace(options, refuse_screens=not named))
    start = list(islice(slices, 2))
    is_alone = len(start) == 1 and not is_volume
    sent = data if is_alone and options.window == LUNG else b""
    for index, slice_ in enumerate(chain(start, slices)):
        name_of_slice = name if is_alone else f"{name}#{index}"
        if isinstance(slice_, ServiceError):
            yield SourceSlice(name_of_slice, error=slice_)
        else:
            window = options.window if slice_.has_hounsfield else None
            yield SourceSlice(name_of_slice, sent, window, slice_)
