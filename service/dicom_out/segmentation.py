"""DICOM SEG of a series: left lung, right lung and lesion at the source's resolution."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.frame import encode_frame
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import JPEGLSLossless

from service.dicom_out import Kind
from service.dicom_out.device import MANUFACTURER, Device
from service.dicom_out.masks import Segment, SeriesMaps
from service.dicom_out.source import Source, SourceHeaderError
from service.dicom_out.source_images import restore_references, slice_index, source_images
from service.imaging.lung_borders import INSIDE
from service.imaging.series.geometry import VolumeGeometry

LABELS: Final = {Segment.LEFT_LUNG: "Left lung", Segment.RIGHT_LUNG: "Right lung", Segment.LESION: "Lesion"}

_MAXIMUM: Final = 255
"""Stored value of the probability 1."""

_COLOURS: Final = {Segment.LEFT_LUNG: (70, -20, -30), Segment.RIGHT_LUNG: (70, -30, 20), Segment.LESION: (65, 45, 60)}
"""CIELAB: blue, green and orange."""


def segmentation(source: Source, maps: SeriesMaps, device: Device, kind: Kind = "binary") -> Dataset:
    """Build the SEG (PS3.3 A.51) of a series. Frames without a pixel of their segment are left out.

    Args:
        source: the series.
        maps: of its slices, whose geometry has their DICOM frames.
        device: the model.
        kind: see `Kind`.

    Raises:
        SourceHeaderError: the source has no frame of reference, or two slices at one place.
    """
    frames = _Frames(maps, kind)
    result = _without_pixels(source, maps.geometry, frames, device)
    (_set_masks if kind == "binary" else _set_probabilities)(result, _in_order(result, frames))
    result.Rows, result.Columns = maps.geometry.rows, maps.geometry.columns
    restore_references(result, maps.geometry.sources)
    source.restore_identity(result)
    return result


class _Frames:
    """Frames of the SEG, one at a time; masks are kept as bits, probabilities are made when they are asked for."""

    def __init__(self, maps: SeriesMaps, kind: Kind) -> None:
        self.kind = kind
        self._maps = maps
        self._size = maps.geometry.rows, maps.geometry.columns
        self._packed = [self._pack(index) for index in range(len(self))] if kind == "binary" else []

    def __len__(self) -> int:
        return len(self._maps.slices)

    def frame(self, index: int, segment: Segment) -> NDArray[np.uint8]:
        """Return the stored values of one slice and segment: uint8 (rows, columns)."""
        if self._maps.slices[index] is None:
            return np.zeros(self._size, np.uint8)
        if self._packed:
            bits = np.unpackbits(self._packed[index][segment - 1], count=self._size[0] * self._size[1])
            return bits.reshape(self._size)
        return np.asarray(np.rint(self._maps.probabilities(index)[segment - 1] * _MAXIMUM), dtype=np.uint8)

    def _pack(self, index: int) -> list[NDArray[np.uint8]]:
        return [] if self._maps.slices[index] is None else [np.packbits(mask) for mask in self._maps.masks(index)]


def _without_pixels(source: Source, geometry: VolumeGeometry, frames: _Frames, device: Device) -> Dataset:
    """Let highdicom build the SEG of slices of one pixel: with all pixels it takes 11 bytes for each and segment."""
    if not source.header.get("FrameOfReferenceUID"):
        raise SourceHeaderError("the source has no FrameOfReferenceUID")
    if len(np.unique(geometry.offsets)) < len(geometry.offsets):
        raise SourceHeaderError("two of its slices are at one place")
    pixels = np.zeros((len(frames), 1, 1, len(Segment)), np.uint8 if frames.kind == "binary" else np.float32)
    for index in range(len(frames)):
        pixels[index, 0, 0] = [frames.frame(index, segment).any() for segment in Segment]
    try:
        return Segmentation(
            source_images(source, geometry),
            pixels,
            frames.kind.upper(),
            [_describe(segment, device) for segment in Segment],
            device.uid("segmentations", source.series_uid),
            source.series_number(1),
            device.uid("segmentation", frames.kind, source.series_uid, *source.instance_uids),
            1,
            MANUFACTURER,
            device.name,
            list(device.software_versions),  # type: ignore[arg-type] # highdicom means several, and says one
            device.sha256,
            max_fractional_value=_MAXIMUM,
            content_label="LUNGS_LESION",
            content_description="Research only, not for diagnosis. Cells enlarged to pixels.",
            series_description=f"{MANUFACTURER}: lungs and lesion, research only",
            specific_character_set=None,
        )
    except Exception:  # noqa: BLE001 - highdicom raises nearly anything on odd headers, and may quote them
        raise SourceHeaderError("a SEG can't be built from its header") from None


def _describe(segment: Segment, device: Device) -> SegmentDescription:
    lesion = segment is Segment.LESION
    description = SegmentDescription(
        int(segment),
        LABELS[segment],
        codes.SCT.MorphologicallyAbnormalStructure if lesion else codes.SCT.AnatomicalStructure,
        codes.SCT.Lesion if lesion else codes.SCT.Lung,
        "AUTOMATIC",
        AlgorithmIdentificationSequence(
            device.name, codes.DCM.ArtificialIntelligence, device.version, parameters={"sha256": device.sha256}
        ),
        anatomic_regions=[codes.SCT.Lung] if lesion else None,
        display_color=CIELabColor(*_COLOURS[segment]),
    )
    what = "lesion inside the lungs" if lesion else LABELS[segment].lower()
    description.SegmentDescription = (
        f"Research only, not for diagnosis. Binary: where the probability of {what} is at least {INSIDE}. Fractional: "
        "the probability. The network answers cells that are coarser than pixels; they are enlarged bilinearly. Slices "
        "of a thin series that were not read are interpolated."
    )
    if not lesion:
        side = codes.SCT.Left if segment is Segment.LEFT_LUNG else codes.SCT.Right
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept.from_code(side)]
    return description


def _in_order(result: Dataset, frames: _Frames) -> Iterator[NDArray[np.uint8]]:
    """Yield the stored values in the order of the SEG's frames."""
    for groups in result.PerFrameFunctionalGroupsSequence:
        segment = Segment(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        yield frames.frame(slice_index(groups), segment)


def _set_masks(result: Dataset, masks: Iterable[NDArray[np.uint8]]) -> None:
    pixels = b"".join(part.tobytes() for part in _packed(masks))
    result.PixelData = pixels + b"\0" * (len(pixels) % 2)


def _set_probabilities(result: Dataset, probabilities: Iterable[NDArray[np.uint8]]) -> None:
    """Compress 8-bit frames without loss (JPEG-LS): 600 slices would have half a gigabyte."""
    result.PixelData = encapsulate(
        [encode_frame(frame, JPEGLSLossless, 8, 8, result.PhotometricInterpretation) for frame in probabilities]
    )
    result["PixelData"].VR = "OB"
    result["PixelData"].is_undefined_length = True
    result.file_meta.TransferSyntaxUID = JPEGLSLossless


def _packed(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Pack values of 0 and 1 into bits, the first in the lowest bit; frames follow each other without a gap."""
    rest = np.empty(0, np.uint8)
    for frame in frames:
        bits = np.concatenate([rest, frame.ravel()])
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little")
        rest = bits[whole:]
    yield np.packbits(rest, bitorder="little")
