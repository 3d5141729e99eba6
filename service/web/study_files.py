"""Answer of a study as a zip: study.json, and for each series pictures of its key slices and the result files."""

import io
import zipfile
from collections.abc import Iterator
from typing import Final

from service import __version__
from service.api_study import StudyAnswer
from service.dicom_out.device import Device
from service.dicom_out.files import ResultFiles, result_files
from service.dicom_out.masks import Segment, SeriesMaps, SliceMaps, interpolate
from service.dicom_out.report import Findings
from service.imaging.overlay import overlay, png, with_colour_bar
from service.inference.served_model import ServedModel
from service.model.assess_series import RULE, SeriesAssessment
from service.model.card import OperatingPoint
from service.model.study import SeriesToRead, Study

_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Of the files in a zip, so that the same answer is the same zip."""


def study_zip(study: Study, answer: StudyAnswer, model: ServedModel, point: OperatingPoint) -> bytes:
    """Build the zip.

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
            if found is None:
                continue
            for name, data in _pictures(read, found):
                _write(archive, f"series-{index}/{name}", data)
            results = series_results(read, found, device)
            for name, data in results.content.items():
                _write(archive, f"series-{index}/{name}", data)
            if results.missing:
                _write(archive, f"series-{index}/missing.txt", "\n".join(results.missing).encode())
    return file.getvalue()


def series_results(read: SeriesToRead, found: SeriesAssessment, device: Device) -> ResultFiles:
    """Write SEG and SR of a series, or masks; of a thin series, also for the slices that were not read."""
    geometry = read.series.geometry
    frames = geometry.sources if geometry is not None else ()
    maps = None
    if geometry is not None and found.lung_involvement is not None:
        known = [_maps(read, found, index) for index in range(len(read.slices))]
        is_known = [slice_.is_seen for slice_ in read.slices]
        maps = SeriesMaps(interpolate(known, is_known, geometry.offsets), geometry)
    return result_files(frames, maps, _findings(read, found), device)


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED)


def _pictures(read: SeriesToRead, found: SeriesAssessment) -> Iterator[tuple[str, bytes]]:
    for index in found.key_slices:
        slice_ = read.slices[index]
        if slice_.found.read.picture is not None and slice_.prediction is not None:
            prediction = slice_.prediction
            picture = overlay(slice_.found.read.picture, prediction.heatmap, lungs=prediction.lungs)
            yield f"key-{index:04d}.png", png(with_colour_bar(picture))


def _findings(read: SeriesToRead, found: SeriesAssessment) -> Findings:
    involvement, lung, left = found.lung_involvement, found.lung_volume_ml, found.left_lung_volume_ml
    volumes = {}
    if lung is not None and left is not None and found.lesion_volume_ml is not None:
        volumes = {
            Segment.LEFT_LUNG: left,
            Segment.RIGHT_LUNG: lung - left,
            Segment.LESION: found.lesion_volume_ml,
        }
    return Findings(
        probability=found.probability,
        label=found.label,
        severity=found.severity,
        involvement=None if involvement is None else (involvement.both, involvement.left, involvement.right),
        volumes_ml=volumes,
        remarks=(f"Rule: {RULE}.", *read.series.warnings.values()),
    )


def _maps(read: SeriesToRead, found: SeriesAssessment, index: int) -> SliceMaps | None:
    prediction = read.slices[index].prediction
    if prediction is None or prediction.lungs is None:
        return None
    return SliceMaps(prediction.lungs, prediction.heatmap, found.borders[index])
