import io
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from service.dicom_out.report import report
from service.dicom_out.segmentation import segmentation
from service.dicom_out.source import SourceHeaderError, read_source
from service.imaging.series.geometry import SourceFrame
from tests.service.dicom_out.objects import DEVICE, dciodvfy, read_segmentation, written
from tests.service.dicom_out.test_report import FINDINGS
from tests.support.files.ball_series import maps, series

TYPE_2 = (
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


def results(**changes: Any) -> list[Dataset]:
    """SEG and SR of a series whose headers have these elements."""
    chest = maps(series(count=3, **changes))
    source = read_source(chest.geometry.sources)
    seg = segmentation(source, chest, DEVICE)
    return [seg, report(source, FINDINGS, DEVICE, seg)]


def test_patient_and_study_are_those_of_the_source() -> None:
    for result in results():
        assert (result.PatientName, result.PatientID, result.PatientSex) == ("MARKER^PATIENT", "MARKER", "F")
        assert (result.StudyInstanceUID, result.StudyDate, result.AccessionNumber) == ("1.2.5", "20261130", "A1")
        assert (result.PatientAge, result.StudyDescription) == ("076Y", "Chest")


def test_missing_type_2_elements_are_empty_and_nothing_is_invented(tmp_path: Any) -> None:
    for result in results(**dict.fromkeys(TYPE_2)):
        assert {name: str(result[name].value or "") for name in TYPE_2} == dict.fromkeys(TYPE_2, "")
        assert [line for line in dciodvfy(result, tmp_path) if line.startswith("Error")] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientSex", "Female"),
        ("PatientBirthDate", "unknown"),
        ("StudyDate", "2026-11-30"),
        ("StudyTime", "10:11"),
        ("StudyID", "longer than sixteen characters"),
        ("PatientName", "no caret, just words"),
    ],
)
def test_malformed_elements_are_kept_as_they_are(name: str, value: str) -> None:
    for result in results(**{name: value}):
        assert dcmread(io.BytesIO(written(result)))[name].value == value


@pytest.mark.parametrize(
    ("charset", "patient"),
    [
        ("ISO_IR 192", "王^小東"),
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_survive_in_their_character_set(charset: Any, patient: str) -> None:
    for result in results(SpecificCharacterSet=charset, PatientName=patient, StudyDescription="Thorax"):
        assert result.PatientName == patient
        assert result.SpecificCharacterSet == charset


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_source_without_its_identifiers_is_refused_by_name(name: str) -> None:
    with pytest.raises(SourceHeaderError, match=name):
        results(**{name: None})


def test_slices_without_headers_are_refused() -> None:
    with pytest.raises(SourceHeaderError, match="without DICOM headers"):
        read_source(())


@pytest.mark.parametrize("data", [b"", b"DICM", b"\x08\x00\x05\x00CS\xff\xff", bytes(range(256)) * 40])
def test_a_header_that_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(SourceHeaderError):
        read_source([SourceFrame("1.2", "1.3", None, data)])


def test_lossy_compression_of_the_source_is_told() -> None:
    lossy = {"Ratio": "12", "Method": "ISO_10918_1", "": "01"}
    seg, _ = results(**{f"LossyImageCompression{name}": value for name, value in lossy.items()})
    assert (seg.LossyImageCompression, seg.LossyImageCompressionRatio) == ("01", 12)


def test_writing_leaves_the_source_as_it_is() -> None:
    chest = maps(series(count=3))
    source = read_source(chest.geometry.sources)
    before = source.header.to_json()
    first, again = (segmentation(source, chest, DEVICE) for _ in range(2))
    assert source.header.to_json() == before
    assert read_segmentation(first).pixel_array.tobytes() == read_segmentation(again).pixel_array.tobytes()
    assert list(first.keys()) == list(again.keys())  # UIDs differ, in length too
