from typing import Any

import numpy as np
import pytest

from service.errors import ErrorCode, ServiceError
from service.imaging.decode import DecodeLimits
from service.imaging.series.files import ReadOptions, StudySlice, read_study_file
from service.imaging.series.grouping import SeriesWarning
from service.model.prediction import NetworkPrediction
from service.model.study import FileToDecode, NotASlice, SeriesSlice, Study, StudySeries
from service.model.study_plan import plan_study
from tests.support.files.studies import series
from tests.support.networks.tiny import tiny_card

CARD = tiny_card()
NO_LUNGS = ServiceError("none", code=ErrorCode.NO_LUNGS)
FAILED = ServiceError("failed", code=ErrorCode.INFERENCE_FAILED)


def prediction(probability: float = 0.5) -> NetworkPrediction:
    """A slice that is lung."""
    return NetworkPrediction(probability, np.zeros((4, 4), np.float32), lungs=np.ones((4, 4), np.float32))


def slices_at(heights: list[float], **changes: Any) -> list[SeriesSlice]:
    """Slices of a series, from one file each."""
    options = ReadOptions(input_size=16, limits=DecodeLimits())
    read = [read_study_file(data, "", options)[0] for data in series(heights, **changes)]
    return [
        SeriesSlice(file, f"{file}.dcm", slice_) for file, slice_ in enumerate(read) if isinstance(slice_, StudySlice)
    ]


def planned(heights: list[float], every_mm: float | None = None) -> StudySeries:
    """The only series of these slices."""
    (read,) = plan_study(slices_at(heights), [], every_mm).series
    return read


def steps(spacing: float, count: int) -> list[float]:
    """So many heights."""
    return [spacing * step for step in range(count)]


@pytest.mark.parametrize(
    ("spacing", "every_mm", "read"),
    [(5, None, 12), (2.5, None, 12), (1.25, None, 3), (1, None, 3), (1, 0, 12), (5, 10, 6), (5, 0, 12), (1, 0.5, 12)],
)
def test_thin_series_are_read_in_steps(spacing: float, every_mm: float | None, read: int) -> None:
    assert len(planned(steps(spacing, 12), every_mm).wanted) == read


def test_slices_are_read_from_the_middle_outwards() -> None:
    assert planned(steps(5, 5)).wanted == [2, 1, 3, 0, 4]


def test_the_lung_finder_looks_first_beyond_a_slice_without_lungs() -> None:
    read = planned(steps(5, 7))
    assert not any(read.is_beyond_lungs(index) for index in range(7))
    read.slices[3].answer, read.slices[5].answer = prediction(), NO_LUNGS
    assert [read.is_beyond_lungs(index) for index in range(7)] == [False] * 6 + [True]
    read.slices[2].answer = NO_LUNGS
    assert [read.is_beyond_lungs(index) for index in (0, 1, 4)] == [True, True, False]


def test_a_failed_slice_does_not_shrink_the_lungs() -> None:
    whole, damaged = planned(steps(5, 5)), planned(steps(5, 5))
    for read in (whole, damaged):
        for slice_ in read.slices:
            slice_.answer = prediction()
    damaged.slices[2].answer = FAILED
    point = CARD.operating_point(None)
    one, other = whole.assess(CARD, point), damaged.assess(CARD, point)
    assert one is not None
    assert other is not None
    assert one.lung_volume_ml == pytest.approx(other.lung_volume_ml)


def test_slices_that_are_not_read_are_stood_for_by_their_neighbours() -> None:
    read, whole = planned(steps(1, 11)), planned(steps(1, 11), every_mm=0)
    for series_ in (read, whole):
        for index in series_.wanted:
            series_.slices[index].answer = prediction()
    point = CARD.operating_point(None)
    one, other = read.assess(CARD, point), whole.assess(CARD, point)
    assert one is not None
    assert other is not None
    assert len(read.wanted) == 3
    assert one.lung_volume_ml is not None
    assert other.lung_volume_ml is not None
    assert one.lung_volume_ml / 15 == pytest.approx(other.lung_volume_ml / 11)
    assert set(one.key_slices) <= set(read.wanted)


@pytest.mark.parametrize(("lungs", "is_few"), [(2, True), (5, False)])
def test_a_result_that_rests_on_little_lung_says_so(lungs: int, is_few: bool) -> None:
    read = planned(steps(5, 6))
    for index, slice_ in enumerate(read.slices):
        slice_.answer = prediction() if index < lungs else NO_LUNGS
    warnings = read.warnings(read.assess(CARD, CARD.operating_point(None)))
    assert (SeriesWarning.FEW_LUNGS in warnings) == is_few
    if is_few:
        assert "2 of 6 slices" in warnings[SeriesWarning.FEW_LUNGS]


def test_the_last_reason_of_a_file_is_that_of_every_slice_it_lacks() -> None:
    slices, image = slices_at(steps(5, 3)), slices_at([0.0])[0].image
    FileToDecode(0, "0.dcm", slices).set_decoded([image, FAILED])
    assert slices[0].image is image
    assert [slice_.reason for slice_ in slices] == [None, FAILED.code, FAILED.code]


@pytest.mark.parametrize("frames", [0, 1])
def test_frames_that_a_worker_leaves_out_are_never_those_of_another_slice(frames: int) -> None:
    slices, image = slices_at(steps(5, 2)), slices_at([0.0])[0].image
    places = [slice_.image for slice_ in slices]
    FileToDecode(0, "0.dcm", slices).set_decoded([image] * frames)
    assert [slice_.image is place for slice_, place in zip(slices, places, strict=True)] == [frames == 0, True]
    assert [slice_.reason for slice_ in slices] == [None] * frames + [ErrorCode.DAMAGED_IMAGE] * (2 - frames)


def test_duplicates_and_companions_are_no_failures() -> None:
    slices = [*slices_at(steps(5, 3)), *slices_at([5.0], InstanceNumber=9)]
    scout = NotASlice(7, "scout", ServiceError("", code=ErrorCode.LOCALIZER))
    damaged = NotASlice(2, "bad", ServiceError("", code=ErrorCode.DAMAGED_IMAGE))
    study: Study = plan_study(slices, [scout, damaged])
    assert [(other.error.code, other.is_companion) for other in study.others] == [
        ("duplicate_position", True),
        ("damaged_image", False),
        ("localizer", True),
    ]
    assert [index for _, index in study.to_read()] == [1, 0, 2]
