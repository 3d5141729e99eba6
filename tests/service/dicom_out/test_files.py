import io
from typing import Any

import pytest
from pydicom import dcmread

from service.dicom_out import MISSING
from service.dicom_out.files import REPORT, SEGMENTATION, result_files
from service.dicom_out.nifti import FILES
from tests.service.dicom_out.objects import DEVICE
from tests.service.dicom_out.test_report import FINDINGS
from tests.support.files.ball_series import maps, series


def test_a_dicom_series_gets_segmentation_and_report() -> None:
    chest = maps(series(count=3))
    files = result_files(chest.geometry.sources, chest, FINDINGS, DEVICE)
    assert files.keys() == {SEGMENTATION, REPORT}
    modalities = {name: dcmread(io.BytesIO(data)).Modality for name, data in files.items()}
    assert modalities == {SEGMENTATION: "SEG", REPORT: "SR"}


def test_slices_without_headers_get_nifti_masks_and_the_reason() -> None:
    files = result_files((), maps(series(count=3)), FINDINGS, DEVICE)
    assert files.keys() == {MISSING, *FILES}
    assert files[MISSING] == (b"No DICOM results: the slices came without DICOM headers.")


def test_a_series_without_frame_of_reference_gets_nifti_masks_and_a_report() -> None:
    chest = maps(series(count=3, FrameOfReferenceUID=None))
    files = result_files(chest.geometry.sources, chest, FINDINGS, DEVICE)
    assert files.keys() == {MISSING, REPORT, *FILES}
    assert files[MISSING] == (b"No SEG: the source has no FrameOfReferenceUID.")


def test_a_series_without_positions_gets_a_report() -> None:
    files = result_files(series(count=3).sources, None, FINDINGS, DEVICE)
    assert files.keys() == {MISSING, REPORT}
    assert files[MISSING] == (b"No masks: the positions of the slices or their lungs are not known.")


@pytest.mark.parametrize(
    "name", ["SeriesNumber", "FrameOfReferenceUID", "SliceThickness", "LossyImageCompressionRatio"]
)
@pytest.mark.parametrize("value", [b"", b"words ", b"-1", b"\xff\xfe\xfd\x00"])
def test_odd_headers_lose_no_result(name: str, value: bytes) -> None:
    changes: dict[str, Any] = {name: value}
    chest = maps(series(count=3, **changes))
    files = result_files(chest.geometry.sources, chest, FINDINGS, DEVICE)
    assert REPORT in files
    assert SEGMENTATION in files or MISSING in files
