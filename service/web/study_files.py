"""Answer of a study as a zip: study.json, pictures of the key slices, DICOM SEG and SR.

A series that no DICOM object can refer to, such as a NIfTI volume, gets NIfTI masks instead."""

import io
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from service import __version__
from service.api_study import StudyAnswer
from service.dicom_out.device import Device
from service.dicom_out.masks import Segment, SliceMaps
from service.dicom_out.nifti import nifti_masks
from service.dicom_out.report import Findings, report
from service.dicom_out.segmentation import segmentation
from service.dicom_out.source import SourceHeaderError, read_source
from service.imaging.overlay import overlay, png, with_colour_bar
from service.imaging.series.geometry import VolumeGeometry
from service.inference.served_model import ServedModel
from service.model.assess_series import RULE, SeriesAssessment
from service.model.card import OperatingPoint
from service.model.study import SeriesToRead, Study

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Of the files in a zip, so that the same answer is the same zip."""


def study_zip(study: Study, answer: StudyAnswer, model: ServedModel, point: OperatingPoint) -> bytes:
    """Build the zip: study.json, and for each series with lungs a folder of pictures, SEG and SR, or masks.

    Args:
        study: read, with pictures and headers of its slices.
        answer: for study.json.
        model: that read it.
        point: for the labels.
    """
    card = model.card
    device = Device(card.name, card.version, model.predictor.sha256, __version__)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        _write(archive, "study.json", answer.model_dump_json(indent=1).encode())
        for index, read in enumerate(study.series):
            found = read.assess(card, point)
            if found is not None:
                for name, data in _series_files(read, found, device):
                    _write(archive, f"series-{index}/{name}", data)
    return file.getvalue()


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED)


def _series_files(read: SeriesToRead, found: SeriesAssessment, device: Device) -> Iterator[tuple[str, bytes]]:
    for index in found.key_slices:
        slice_ = read.slices[index]
        if slice_.found.read.picture is not None and slice_.prediction is not None:
            prediction = slice_.prediction
            picture = overlay(slice_.found.read.picture, prediction.heatmap, lungs=prediction.lungs)
            yield f"key-{index:04d}.png", png(with_colour_bar(picture))
    geometry = read.series.geometry
    if geometry is None or not found.borders or found.lung_involvement is None:
        return
    maps = _maps(read, found)
    try:
        yield from _dicom_files(geometry, maps, read, found, device)
    except SourceHeaderError:
        yield from nifti_masks(geometry, maps).items()


def _dicom_files(
    geometry: VolumeGeometry,
    maps: list[SliceMaps | None],
    read: SeriesToRead,
    found: SeriesAssessment,
    device: Device,
) -> Iterator[tuple[str, bytes]]:
    source = read_source(geometry)
    masks = segmentation(source, maps, device)
    yield "segmentation.dcm", _dicom(masks)
    yield "report.dcm", _dicom(report(source, _findings(read, found), device, masks))


def _dicom(dataset: "Dataset") -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _findings(read: SeriesToRead, found: SeriesAssessment) -> Findings:
    involvement = found.lung_involvement
    assert involvement is not None  # noqa: S101 - asked before
    lung, left, lesion = (
        volume or 0.0 for volume in (found.lung_volume_ml, found.left_lung_volume_ml, found.lesion_volume_ml)
    )
    return Findings(
        probability=found.probability,
        label=found.label,
        severity=str(found.severity),
        volumes_ml={Segment.LEFT_LUNG: left, Segment.RIGHT_LUNG: lung - left, Segment.LESION: lesion},
        involvement=(involvement.both, involvement.left, involvement.right),
        remarks=(f"Rule: {RULE}.", *read.series.warnings.values()),
    )


def _maps(read: SeriesToRead, found: SeriesAssessment) -> list[SliceMaps | None]:
    """Return the maps of every slice; those of a slice that was not read lie between those of its neighbours."""
    seen = [index for index, slice_ in enumerate(read.slices) if slice_.is_seen]
    maps: list[SliceMaps | None] = []
    for index, slice_ in enumerate(read.slices):
        if slice_.answer is None:
            before = max((each for each in seen if each < index), default=None)
            after = min((each for each in seen if each > index), default=None)
            maps.append(_between(read, found, index, before, after))
        else:
            maps.append(_own(read, found, index))
    return maps


def _own(read: SeriesToRead, found: SeriesAssessment, index: int | None) -> SliceMaps | None:
    prediction = None if index is None else read.slices[index].prediction
    if index is None or prediction is None or prediction.lungs is None:
        return None
    return SliceMaps(prediction.lungs, prediction.heatmap, found.borders[index])


def _between(
    read: SeriesToRead, found: SeriesAssessment, index: int, before: int | None, after: int | None
) -> SliceMaps | None:
    """Interpolate linearly between two slices that were read; a neighbour without lungs has none."""
    maps = _own(read, found, before), _own(read, found, after)
    known = [each for each in maps if each is not None]
    if not known or before is None or after is None or read.series.geometry is None:
        return None
    offsets = read.series.geometry.offsets
    share = (offsets[index] - offsets[before]) / (offsets[after] - offsets[before])
    weights = [weight for weight, each in zip((1 - share, share), maps, strict=True) if each is not None]
    lungs = sum(weight * each.lungs for weight, each in zip(weights, known, strict=True))
    lesion = sum(weight * each.lesion for weight, each in zip(weights, known, strict=True))
    return SliceMaps(np.asarray(lungs, np.float32), np.asarray(lesion, np.float32), known[0].border)
