"""Result files of a series: pictures of its key slices, DICOM SEG and SR, or masks."""

from collections.abc import Iterator

from service import __version__
from service.dicom_out.device import Device
from service.dicom_out.files import ResultFiles, result_files
from service.dicom_out.masks import Segment, SeriesMaps, SliceMaps, interpolate
from service.dicom_out.report import Findings
from service.dicom_out.segmentation import Kind
from service.imaging.overlay import overlay, png, with_colour_bar
from service.model.assess_series import RULE, SeriesAssessment
from service.model.card import ModelCard
from service.model.study import SeriesToRead


def key_pictures(read: SeriesToRead, found: SeriesAssessment) -> Iterator[tuple[str, bytes]]:
    """Draw the key slices with their maps: name and PNG of each; none where pictures were not kept."""
    for index in found.key_slices:
        slice_ = read.slices[index]
        if slice_.found.read.picture is not None and slice_.prediction is not None:
            prediction = slice_.prediction
            picture = overlay(slice_.found.read.picture, prediction.heatmap, lungs=prediction.lungs)
            yield f"key-{index:04d}.png", png(with_colour_bar(picture))


def series_results(
    read: SeriesToRead, found: SeriesAssessment, card: ModelCard, sha256: str, kind: Kind = "binary"
) -> ResultFiles:
    """Write SEG and SR of a series, or masks; of a thin series, also for the slices that were not read.

    Args:
        read: with the headers of its slices.
        found: the answer to it.
        card: of the model.
        sha256: of the model's file.
        kind: of the SEG.
    """
    geometry = read.series.geometry
    sources = (slice_.found.read.place.source for slice_ in read.slices)
    frames = tuple(source for source in sources if source is not None)
    maps = None
    if geometry is not None and found.lung_involvement is not None:
        known = [_maps(read, found, index) for index in range(len(read.slices))]
        is_known = [slice_.is_seen for slice_ in read.slices]
        maps = SeriesMaps(interpolate(known, is_known, geometry.offsets), geometry)
    device = Device(card.name, card.version, sha256, __version__)
    return result_files(frames, maps, _findings(read, found), device, kind)


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
