import io
from pathlib import Path
from typing import Any

import pytest
from highdicom.sr import srread
from pydicom.dataset import Dataset

from service import DISCLAIMER
from service.dicom_out.masks import Segment
from service.dicom_out.report import MEANINGS, SCHEME, Findings, report
from service.dicom_out.segmentation import segmentation
from service.dicom_out.source import read_source
from tests.service.dicom_out.objects import DEVICE, dciodvfy, written
from tests.support.files.ball_series import maps, series

FINDINGS = Findings(
    probability=0.8123,
    label="COVID",
    severity="CT-1",
    volumes_ml={Segment.LEFT_LUNG: 1655.25, Segment.RIGHT_LUNG: 1700.5, Segment.LESION: 113.125},
    involvement=(0.0337, 0.0, 0.0665),
    remarks=("Mean of log odds over slices with lesion.",),
)


def built(count: int = 5, *, with_segmentation: bool = True) -> tuple[Dataset, Dataset | None]:
    chest = maps(series(count=count))
    source = read_source(chest.geometry.sources)
    result = segmentation(source, chest, DEVICE) if with_segmentation else None
    return report(source, FINDINGS, DEVICE, result), result


def items(dataset: Dataset) -> list[Dataset]:
    """All content items, depth first."""
    below = []
    for item in dataset.get("ContentSequence", []):
        below += [item, *items(item)]
    return below


def name(item: Dataset) -> tuple[str, str]:
    code = item.ConceptNameCodeSequence[0]
    return code.CodeValue, code.CodingSchemeDesignator


def side(item: Dataset) -> str | None:
    """Laterality of the item's finding site."""
    return next(
        (element.ConceptCodeSequence[0].CodeMeaning for element in items(item) if name(element)[0] == "272741003"), None
    )


def measured(dataset: Dataset) -> dict[tuple[str, str | None], tuple[float, str]]:
    """Value and unit of each measurement of the series, by code and side."""
    values = {}
    for item in items(dataset):
        if item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0]
            unit = value.MeasurementUnitsCodeSequence[0].CodeValue
            values[name(item)[0], side(item)] = float(value.NumericValue), unit
    return values


VOLUME = "118565006"


def test_measurements_have_their_values_units_and_sides() -> None:
    assert measured(built()[0]) == {
        ("probability", None): (0.8123, "1"),
        (VOLUME, "Bilateral"): (3355.75, "ml"),
        (VOLUME, None): (113.125, "ml"),  # the last of the segments, whose site is that of their group
        ("involvement", "Bilateral"): (3.37, "%"),
        ("involvement", "Left"): (0.0, "%"),
        ("involvement", "Right"): (6.65, "%"),
    }


def test_severity_label_notice_and_remarks_are_in_the_report() -> None:
    result, _ = built()
    values = {
        name(element): element.ConceptCodeSequence[0].CodeValue
        for element in items(result)
        if element.ValueType == "CODE"
    }
    assert values["246112005", "SCT"] == "CT-1"
    assert values["label", SCHEME] == "COVID"
    texts = [element.TextValue for element in items(result) if element.ValueType == "TEXT"]
    assert {DISCLAIMER, *FINDINGS.remarks} <= set(texts)
    assert "research only" in result.SeriesDescription


def test_each_segment_is_referred_to_with_its_volume() -> None:
    result, seg = built()
    assert seg is not None
    groups = srread_groups(result)
    volumes = {}
    for group in groups:
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        (measurement,) = group.get_measurements()
        volumes[reference.referenced_segment_numbers[0]] = (measurement.value, measurement.unit.value)
    assert volumes == {int(segment): (volume, "ml") for segment, volume in FINDINGS.volumes_ml.items()}


def srread_groups(result: Dataset) -> list[Any]:
    """Measurement groups of segments as highdicom reads them from a file."""
    content: Any = srread(io.BytesIO(written(result))).content
    return list(content.get_volumetric_roi_measurement_groups())


def test_the_observer_is_the_model_as_a_device() -> None:
    result, _ = built()
    values = {name(element)[0]: element for element in items(result)}
    assert values["121005"].ConceptCodeSequence[0].CodeValue == "121007"
    assert values["121013"].TextValue == f"{DEVICE.name} {DEVICE.version}"
    assert values["121016"].TextValue == DEVICE.sha256
    assert list(result.SoftwareVersions) == ["model 9.9.9", "service 1.2.3"]


def test_the_evidence_has_every_instance_of_the_source_and_the_segmentation() -> None:
    result, seg = built()
    assert seg is not None
    (evidence,) = result.CurrentRequestedProcedureEvidenceSequence
    by_series = {
        element.SeriesInstanceUID: [item.ReferencedSOPInstanceUID for item in element.ReferencedSOPSequence]
        for element in evidence.ReferencedSeriesSequence
    }
    assert by_series == {
        "1.2.6": [f"1.2.3.{number}" for number in range(1, 6)],
        seg.SeriesInstanceUID: [seg.SOPInstanceUID],
    }


@pytest.mark.parametrize("with_segmentation", [True, False])
def test_dciodvfy_reports_no_error_and_no_warning_but_of_our_own_codes(with_segmentation: bool, tmp_path: Path) -> None:
    result, _ = built(with_segmentation=with_segmentation)
    unexpected = [line for line in dciodvfy(result, tmp_path) if not line.endswith(f"= <{SCHEME}>")]
    assert unexpected == []


def test_without_a_segmentation_the_volumes_are_in_the_report() -> None:
    groups = [item for item in items(built(with_segmentation=False)[0]) if name(item)[0] == "125007"]
    volumes = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for group in groups
        for item in items(group)
        if name(item)[0] == VOLUME
    ]
    assert volumes == [3355.75, *FINDINGS.volumes_ml.values()]


def test_codes_fit_their_element() -> None:
    assert all(len(code) <= 16 for code in MEANINGS)


def test_a_model_without_lungs_reports_probability_and_label_alone(tmp_path: Path) -> None:
    source = read_source(series(count=1).sources)
    result = report(source, Findings(0.25, "NonCOVID", None, None), DEVICE, None)
    assert measured(result) == {("probability", None): (0.25, "1")}
    assert not [line for line in dciodvfy(result, tmp_path) if line.startswith("Error")]
