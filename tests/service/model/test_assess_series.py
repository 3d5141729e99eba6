from dataclasses import replace

import numpy as np
import pytest

from service.imaging.series.geometry import VolumeGeometry
from service.model.assess_series import SeriesAssessment, Severity, assess_series, severity_of
from service.model.prediction import NetworkPrediction
from tests.support.networks.tiny import tiny_card

CARD = tiny_card()

CELLS = 20


def prediction(
    probability: float, right: tuple[int, int] = (4, 0), left: tuple[int, int] = (4, 0)
) -> NetworkPrediction:
    """A slice with lungs of so many columns of cells, so many of them lesion, on the right and on the left."""
    lungs, lesions = np.zeros((2, CELLS, CELLS), np.float32)
    for start, (lung, lesion) in ((4, right), (12, left)):
        lungs[5:15, start : start + lung] = 0.9
        lesions[5:15, start : start + lesion] = 0.8
    return NetworkPrediction(probability, lesions, lungs=lungs)


def stack(*heights: float) -> VolumeGeometry:
    """Slices of 100 x 100 pixels of 2 mm."""
    positions = np.array([[0.0, 0.0, height] for height in heights])
    return VolumeGeometry(100, 100, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (2.0, 2.0), positions)


def assessed(predictions: list[NetworkPrediction | None], geometry: VolumeGeometry | None = None) -> SeriesAssessment:
    """The answer at the balanced operating point."""
    assessment = assess_series(predictions, geometry, CARD, CARD.operating_point(None))
    assert assessment is not None
    return assessment


def test_volumes_come_from_cells_and_distances() -> None:
    assessment = assessed([prediction(0.5, (4, 2)), prediction(0.5)], stack(0, 10))
    cell_ml = (200 / CELLS) ** 2 * 10 / 1000
    assert assessment.lung_volume_ml == pytest.approx(2 * 80 * cell_ml)
    assert assessment.lesion_volume_ml == pytest.approx(20 * cell_ml)
    assert assessment.lung_involvement is not None
    assert assessment.lung_involvement.both == pytest.approx(20 / 160)
    assert assessment.lung_involvement.right == pytest.approx(20 / 80)
    assert assessment.lung_involvement.left == 0
    assert assessment.severity == Severity.CT_1


def test_a_slice_counts_as_much_as_the_lung_it_stands_for() -> None:
    sick, well = prediction(0.9, (4, 4), (4, 4)), prediction(0.1)
    narrow = assessed([sick, well, well], stack(0, 1, 21))
    wide = assessed([sick, well, well], stack(0, 20, 21))
    assert narrow.lung_involvement is not None
    assert wide.lung_involvement is not None
    assert narrow.lung_involvement.both == pytest.approx(1 / (1 + 10.5 + 20))
    assert narrow.probability < 0.5 < wide.probability


def test_one_sure_slice_does_not_decide() -> None:
    assert assessed([prediction(0.99), *[prediction(0.1)] * 20]).probability < 0.2


def test_equal_slices_give_their_probability() -> None:
    assessment = assessed([prediction(0.7), prediction(0.7, (1, 0), (1, 0))], stack(0, 5))
    assert assessment.probability == pytest.approx(0.7)
    assert assessment.label == "COVID"


def test_the_answers_of_a_series_multiply_like_those_of_a_slice() -> None:
    slices = [
        replace(prediction(lesion * covid), lesion_probability=lesion, covid_given_lesion=covid)
        for lesion, covid in ((0.99, 0.6), (0.5, 0.9), (0.1, 0.2))
    ]
    assessment = assessed([*slices])
    assert assessment.lesion_probability is not None
    assert assessment.covid_given_lesion is not None
    assert assessment.lesion_probability * assessment.covid_given_lesion == pytest.approx(assessment.probability)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_certain_slice_keeps_the_answer_finite(probability: float) -> None:
    assert 0 < assessed([prediction(probability)]).probability < 1


def test_slices_without_lungs_count_for_nothing_but_their_extent() -> None:
    assessment = assessed([None, prediction(0.7), None], stack(0, 10, 20))
    assert assessment.probability == pytest.approx(0.7)
    assert assessment.lung_volume_ml == pytest.approx(80 * (200 / CELLS) ** 2 * 10 / 1000)
    assert assessment.key_slices == (1,)


def test_without_any_lungs_there_is_no_answer() -> None:
    assert assess_series([None, None], stack(0, 1), CARD, CARD.operating_point(None)) is None


@pytest.mark.parametrize("geometry", [None, stack(0)])
def test_without_extents_there_is_involvement_and_no_volume(geometry: VolumeGeometry | None) -> None:
    assessment = assessed([prediction(0.7, (4, 4))], geometry)
    assert assessment.lung_volume_ml is None
    assert assessment.lung_involvement is not None
    assert assessment.lung_involvement.both == 0.5


def test_a_model_without_lungs_gives_a_probability_alone() -> None:
    bare = NetworkPrediction(0.7, np.ones((4, 4), np.float32))
    assessment = assessed([bare, bare], stack(0, 5))
    assert assessment.probability == pytest.approx(0.7)
    assert (assessment.lung_involvement, assessment.severity, assessment.lung_volume_ml) == (None, None, None)


def test_key_slices_have_most_lesion_and_some_distance() -> None:
    lesions = [0, 1, 4, 3, 0, 2, 1]
    assessment = assessed([prediction(0.5, (4, lesion)) for lesion in lesions], stack(*range(0, 35, 5)))
    assert assessment.key_slices == (2, 5, 0)


def test_left_and_right_are_parted_even_where_one_lung_is_missing() -> None:
    only_right = prediction(0.5, (4, 2), (0, 0))
    assessment = assessed([prediction(0.5), only_right, only_right], stack(0, 5, 10))
    assert assessment.lung_involvement is not None
    assert assessment.lung_involvement.left == 0
    assert assessment.lung_involvement.right == pytest.approx(40 / 120)
    assert all(8 <= border <= 12 for border in assessment.borders.values())


@pytest.mark.parametrize(
    ("involvement", "severity"),
    [(0, 0), (0.004, 0), (0.01, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.51, 3), (0.75, 3), (0.76, 4), (1, 4)],
)
def test_severity_bands(involvement: float, severity: int) -> None:
    assert severity_of(involvement) == f"CT-{severity}"
