import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from covid_ct.http import StudyResults
from covid_ct.pacs.predictor import SeriesPredictor, dicom_results, local_predictor
from service.api import ModelName
from service.api_study import StudyAnswer
from service.errors import UnusableImageError
from tests.support.files.studies import SIDE, series

HEIGHTS = [100.0, 110.0, 120.0]


@pytest.fixture
def predictor(models: Path) -> Iterator[SeriesPredictor]:
    with local_predictor(models, "cpu") as opened:
        yield opened


def modalities(files: list[bytes]) -> list[str]:
    return sorted(str(dcmread(io.BytesIO(file)).Modality) for file in files)


def test_a_series_gets_segmentation_report_and_a_summary(predictor: SeriesPredictor) -> None:
    results = predictor.results(series(HEIGHTS, FrameOfReferenceUID="1.2.9"))
    assert modalities(results.files) == ["SEG", "SR"]
    assert "CT-" in results.summary
    assert predictor.model()[1]


@pytest.mark.parametrize("changes", [{"ImagePositionPatient": None}, {"FrameOfReferenceUID": ""}])
def test_a_series_that_no_segmentation_can_lie_on_gets_its_report(
    changes: dict[str, Any], predictor: SeriesPredictor
) -> None:
    results = predictor.results(series(HEIGHTS, **{"FrameOfReferenceUID": "1.2.9"} | changes))
    assert modalities(results.files) == ["SR"]


def test_a_series_without_lungs_or_slices_is_refused(predictor: SeriesPredictor) -> None:
    black = series(HEIGHTS, PixelData=bytes(2 * SIDE * SIDE), RescaleIntercept=-4000)
    with pytest.raises(UnusableImageError, match="lungs"):
        predictor.results(black)
    with pytest.raises(UnusableImageError, match="axial"):
        predictor.results(series(HEIGHTS, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))


def test_an_answer_without_dicom_objects_is_refused() -> None:
    answer = StudyAnswer(series=[], skipped=[], failed=[], model=ModelName(name="m", version="1"))
    with pytest.raises(UnusableImageError, match="identifiers"):
        dicom_results(StudyResults(answer, {"series-0/lungs.nii.gz": b""}))
