"""Result files of a study: pictures of the key slices, DICOM SEG and SR, or masks."""

from collections.abc import Iterator

from service import __version__
from service.api_study import ResultFile
from service.dicom_out import Kind
from service.dicom_out.device import Device
from service.dicom_out.files import result_files
from service.dicom_out.masks import Segment, SeriesMaps, SliceMaps, interpolate
from service.dicom_out.report import Findings
from service.imaging.overlay import overlay, png, with_colour_bar
from service.model.assess_series import RULE, SeriesAssessment
from service.model.card import ModelCard, OperatingPoint
from service.model.study import Study, StudySeries


def study_files(
    study: Study, card: ModelCard, point: OperatingPoint, sha256: str, kind: Kind = "binary"
) -> Iterator[ResultFile]:
    """Yield the result files of each series that shows lungs.

    Args:
        study: with pictures and headers of its slices, and their predictions.
        card, sha256: of the model.
        point: for the labels.
        kind: of the SEG.
    """
    for index, series in enumerate(study.series):
        assessment = series.assess(card, point)
        if assessment is None:
            continue
        results = series_results(series, assessment, card, sha256, kind)
        for name, content in (*key_pictures(series, assessment), *results.items()):
            yield ResultFile(series=index, name=name, content=content)


def key_pictures(series: StudySeries, assessment: SeriesAssessment) -> Iterator[tuple[str, bytes]]:
    """Draw the key slices with their maps: name and PNG of each; none where pictures were not kept."""
    for index in assessment.key_slices:
        slice_ = series.slices[index]
        if slice_.image.picture is not None and slice_.prediction is not None:
            prediction = slice_.prediction
            picture = overlay(slice_.image.picture, prediction.heatmap, lungs=prediction.lungs)
            yield f"key-{index:04d}.png", png(with_colour_bar(picture))


def series_results(
    series: StudySeries, assessment: SeriesAssessment, card: ModelCard, sha256: str, kind: Kind = "binary"
) -> dict[str, bytes]:
    """Write SEG and SR of a series, or masks; of a thin series, also for the slices that were not read.

    Args:
        series: with the headers of its slices.
        assessment: of it.
        card: of the model.
        sha256: of the model's file.
        kind: of the SEG.
    """
    geometry = series.geometry
    sources = (slice_.image.place.source for slice_ in series.slices)
    frames = tuple(source for source in sources if source is not None)
    maps = None
    if geometry is not None and assessment.lung_involvement is not None:
        known = [_maps(series, assessment, index) for index in range(len(series.slices))]
        is_known = [slice_.is_lung_known for slice_ in series.slices]
        maps = SeriesMaps(interpolate(known, is_known, geometry.offsets), geometry)
    device = Device(card.name, card.version, sha256, __version__)
    return result_files(frames, maps, _findings(series, assessment), device, kind)


def _findings(series: StudySeries, assessment: SeriesAssessment) -> Findings:
    involvement, lung, left = assessment.lung_involvement, assessment.lung_volume_ml, assessment.left_lung_volume_ml
    volumes = {}
    if lung is not None and left is not None and assessment.lesion_volume_ml is not None:
        volumes = {
            Segment.LEFT_LUNG: left,
            Segment.RIGHT_LUNG: lung - left,
            Segment.LESION: assessment.lesion_volume_ml,
        }
    return Findings(
        probability=assessment.probability,
        label=assessment.label,
        severity=assessment.severity,
        involvement=None if involvement is None else (involvement.both, involvement.left, involvement.right),
        volumes_ml=volumes,
        remarks=(f"Rule: {RULE}.", *series.warnings(assessment).values()),
    )


def _maps(series: StudySeries, assessment: SeriesAssessment, index: int) -> SliceMaps | None:
    prediction = series.slices[index].prediction
    if prediction is None or prediction.lungs is None:
        return None
    return SliceMaps(prediction.lungs, prediction.heatmap, assessment.borders[index])
