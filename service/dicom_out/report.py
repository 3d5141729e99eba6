"""DICOM SR of a series: a measurement report (PS3.16, TID 1500) with units and codes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from service import DISCLAIMER
from service.dicom_out.device import MANUFACTURER, Device
from service.dicom_out.masks import Segment
from service.dicom_out.segmentation import LABELS
from service.dicom_out.source import Source, SourceHeaderError

SCHEME: Final = "99COVIDCT"
"""Coding scheme of concepts for which SNOMED CT, LOINC and DICOM have no code."""

MEANINGS: Final = {
    "involvement": "Lesion volume per lung volume",
    "probability": "Probability of COVID-19",
    "label": "Label of the series",
}
"""Meaning of each code of `SCHEME`. DICOM's Probability belongs to a finding, and the report would state COVID-19."""

_MILLILITRE: Final = Code("ml", "UCUM", "milliliter")


@dataclass(frozen=True, slots=True)
class Findings:
    """Result of a series, as in the report.

    Attributes:
        probability: of COVID-19, 0 to 1.
        label: of the series.
        severity: band of involvement, CT-0 to CT-4; None if the model does not find lungs.
        involvement: lesion volume over lung volume, 0 to 1: of both lungs, of the left and of the right one; None as
            above.
        volumes_ml: of each segment; empty if the positions of the slices are not known.
        remarks: sentences for the reader, such as the rule behind the probability, or warnings of the series.
    """

    probability: float
    label: str
    severity: str | None
    involvement: tuple[float, float, float] | None
    volumes_ml: Mapping[Segment, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def report(source: Source, findings: Findings, device: Device, segmentation: Dataset | None) -> Dataset:
    """Build the SR (Comprehensive SR, PS3.3 A.35.3) of a series. Its evidence has every instance of the source.

    Args:
        source: the series.
        findings: the answer.
        device: the model, which is the observer.
        segmentation: the SEG of the series, whose segments the report refers to; None if there is none.

    Raises:
        SourceHeaderError: an element of the header is too odd for highdicom.
    """
    instances, content = _evidence(source), _content(source, findings, device, segmentation)
    try:
        result: Dataset = ComprehensiveSR(
            instances if segmentation is None else [*instances, segmentation],
            content[0],
            device.uid("reports", source.series_uid),
            source.series_number(2),
            device.uid("report", source.series_uid, *source.instance_uids),
            1,
            MANUFACTURER,
            is_complete=True,
            manufacturer_model_name=device.name,
            software_versions=device.software_versions,
            device_serial_number=device.sha256,
            series_description=f"{MANUFACTURER}: measurements, research only",
            specific_character_set=None,
        )
    except Exception:  # noqa: BLE001 - highdicom raises nearly anything on odd headers, and may quote them
        raise SourceHeaderError("a report can't be built from its header") from None
    source.restore_identity(result)
    return result


def _evidence(source: Source) -> list[Dataset]:
    """Return the headers of all instances; the first one has the patient and the study."""
    by_uid: dict[str, Dataset] = {}
    for frame in source.frames:
        if frame.sop_instance_uid in by_uid:
            continue
        instance = Dataset()
        if by_uid:
            instance.StudyInstanceUID = source.header.StudyInstanceUID
            instance.SeriesInstanceUID = source.series_uid
        else:
            instance.update(source.header)
        instance.SOPClassUID, instance.SOPInstanceUID = frame.sop_class_uid, frame.sop_instance_uid
        by_uid[frame.sop_instance_uid] = instance
    return list(by_uid.values())


def _content(source: Source, findings: Findings, device: Device, segmentation: Dataset | None) -> MeasurementReport:
    observer = DeviceObserverIdentifyingAttributes(
        device.uid("device"),
        name=f"{device.name} {device.version}",
        manufacturer_name=MANUFACTURER,
        model_name=device.name,
        serial_number=device.sha256,
    )
    groups: list[MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations] = [
        _series_group(source, findings, device)
    ]
    if segmentation is not None or findings.volumes_ml:
        groups += [_segment_group(segment, source, findings, device, segmentation) for segment in Segment]
    context = ObservationContext(ObserverContext(codes.DCM.Device, observer))
    content = MeasurementReport(context, Code("24627-2", "LN", "CT Chest"), groups)
    for remark in (DISCLAIMER, *findings.remarks):
        content[0].ContentSequence.append(TextContentItem(codes.DCM.Comment, remark, RelationshipTypeValues.CONTAINS))
    return content


def _series_group(source: Source, findings: Findings, device: Device) -> MeasurementsAndQualitativeEvaluations:
    """Build the measurements of the whole series (TID 1501)."""
    evaluations = [QualitativeEvaluation(_concept("label"), _value(findings.label))]
    if findings.severity is not None:
        evaluations.append(QualitativeEvaluation(codes.SCT.Severity, _value(findings.severity)))
    return MeasurementsAndQualitativeEvaluations(
        _tracking("series", source, device),
        algorithm_id=AlgorithmIdentification(device.name, device.version, [f"sha256={device.sha256}"]),
        finding_sites=[_lung(codes.SCT.Bilateral)],
        measurements=list(_series_measurements(findings)),
        qualitative_evaluations=evaluations,
    )


def _series_measurements(findings: Findings) -> Iterator[Measurement]:
    both, left, right = (_lung(side) for side in (codes.SCT.Bilateral, codes.SCT.Left, codes.SCT.Right))
    yield _measurement(_concept("probability"), findings.probability, codes.UCUM.NoUnits)
    if findings.volumes_ml:
        lungs = findings.volumes_ml[Segment.LEFT_LUNG] + findings.volumes_ml[Segment.RIGHT_LUNG]
        yield _measurement(codes.SCT.Volume, lungs, _MILLILITRE, both)
    for share, site in zip(findings.involvement or (), (both, left, right), strict=False):
        yield _measurement(_concept("involvement"), 100 * share, codes.UCUM.Percent, site)


def _segment_group(
    segment: Segment, source: Source, findings: Findings, device: Device, segmentation: Dataset | None
) -> MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Build the volume of a segment, with the reference to it (TID 1411) if there is a SEG (else TID 1501)."""
    sides = {Segment.LEFT_LUNG: codes.SCT.Left, Segment.RIGHT_LUNG: codes.SCT.Right}
    lesion, volume = segment is Segment.LESION, findings.volumes_ml.get(segment)
    content: dict[str, Any] = {
        "finding_category": codes.SCT.MorphologicallyAbnormalStructure if lesion else codes.SCT.AnatomicalStructure,
        "finding_type": codes.SCT.Lesion if lesion else codes.SCT.Lung,
        "finding_sites": [_lung(sides.get(segment, codes.SCT.Bilateral))],
        "measurements": [] if volume is None else [Measurement(codes.SCT.Volume, round(volume, 4), _MILLILITRE)],
    }
    tracking = _tracking(LABELS[segment], source, device)
    if segmentation is None:
        return MeasurementsAndQualitativeEvaluations(tracking, **content)
    reference = ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        int(segment),
        source_series=SourceSeriesForSegmentation(source.series_uid),
    )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(tracking, referenced_segment=reference, **content)


def _tracking(name: str, source: Source, device: Device) -> TrackingIdentifier:
    return TrackingIdentifier(device.uid("tracking", name, source.series_uid), name)


def _measurement(name: Code, value: float, unit: Code, site: FindingSite | None = None) -> Measurement:
    return Measurement(name, round(value, 4), unit, finding_sites=None if site is None else [site])


def _lung(side: Code) -> FindingSite:
    return FindingSite(codes.SCT.Lung, side)


def _concept(code: str) -> Code:
    return Code(code, SCHEME, MEANINGS[code])


def _value(text: str) -> Code:
    return Code(text, SCHEME, text)
