"""Headers of the source series, in the form that highdicom reads, and the patient's and study's elements in results."""

import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from service.imaging.failures import silence_readers
from service.imaging.series.geometry import SourceFrame

_TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Elements that every object needs, perhaps empty (PS3.5 7.4.3)."""

_OF_INSTANCE: Final = ("SOPInstanceUID", "SOPClassUID", "ImagePositionPatient", "InstanceNumber")
"""Elements of a single slice, not of the series."""

_IDENTITY: Final = (*_TYPE_2, "SpecificCharacterSet")
"""Elements that are copied past highdicom, which refuses malformed ones."""

_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID")

_PIXELS: Final = 0x0028
"""The group that describes pixels. Of it, only the history of lossy compression is about results too."""

_LOSSY: Final = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

_FUNCTIONAL_GROUPS: Final = 0x5200
"""Groups from here on describe frames or have pixels."""


class SourceHeaderError(Exception):
    """The series can't be referenced by a DICOM object; the message says why, and quotes no element."""


@dataclass(frozen=True, slots=True)
class Source:
    """The series that results refer to.

    Attributes:
        header: of its first instance: all elements of patient, study, series and frame of reference that can be read,
            with empty elements where type 2 ones are missing or malformed.
        identity: the type 2 elements as the source has them, and its character set.
        frames: DICOM frame of each slice.
    """

    header: Dataset
    identity: Dataset
    frames: Sequence[SourceFrame]

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID of the source."""
        return str(self.header.SeriesInstanceUID)

    @property
    def instance_uids(self) -> list[str]:
        """SOPInstanceUID of each instance once, in the order of the slices."""
        return list(dict.fromkeys(frame.sop_instance_uid for frame in self.frames))

    def series_number(self, last_digit: int) -> int:
        """Number of a result's series: that of the source, followed by two digits."""
        number = str(self.header.get("SeriesNumber", ""))
        return 100 * (int(number) % 1_000_000 if number.isdecimal() else 0) + last_digit

    def restore_identity(self, result: Dataset) -> None:
        """Write the patient's and study's elements into a result, unchanged and unvalidated."""
        result.update(self.identity)


def read_source(frames: Sequence[SourceFrame]) -> Source:
    """Read the header of a series.

    Args:
        frames: of its slices, the first of which that has a header is read; results refer to the instances of all.

    Raises:
        SourceHeaderError: the slices came without DICOM headers, or the header lacks a UID.
    """
    silence_writers()
    if not frames:
        raise SourceHeaderError("the slices came without DICOM headers")
    header, identity = _readable(next((frame.header for frame in frames if frame.header), b""))
    for name in _UIDS:
        if not header.get(name):
            raise SourceHeaderError(f"the source has no {name}")
    return Source(header, identity, frames)


def silence_writers() -> None:
    """Silence pydicom and highdicom: their warnings and logs quote the header, which is patient data."""
    silence_readers()
    warnings.filterwarnings("ignore", module=r"highdicom")
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)


def _readable(data: bytes) -> tuple[Dataset, Dataset]:
    """Split a header into the elements that highdicom reads, and the identity that is copied past it."""
    try:
        read = dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything on hostile bytes
        raise SourceHeaderError("its header can't be read") from None
    header, identity = Dataset(), Dataset()
    for name in _TYPE_2:
        setattr(header, name, "")
        setattr(identity, name, "")
    for tag in filter(_is_kept, read.keys()):
        try:
            element = read[tag]
        except Exception:  # noqa: BLE001, S112 - a malformed element has no value that could be written
            continue
        (identity if element.keyword in _IDENTITY else header).add(element)
    return header, identity


def _is_kept(tag: BaseTag) -> bool:
    if tag.is_private or tag.group >= _FUNCTIONAL_GROUPS:
        return False
    name = keyword_for_tag(tag)
    return name in _LOSSY if tag.group == _PIXELS else name not in _OF_INSTANCE
