import numpy as np
import pytest

from service.dicom_out.masks import Segment, SliceMaps, lung_borders, stored_masks
from service.imaging.dicom_checks import Turn
from tests.support.files.ball_series import maps, series


def lungs(*columns: slice) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found = np.zeros((20, 40), np.float32)
    for each in columns:
        found[5:15, each] = 1
    return found


def test_the_border_is_between_the_lungs_also_where_one_reaches_over_the_middle() -> None:
    usual, over_the_middle = lungs(slice(5, 16), slice(24, 35)), lungs(slice(5, 21), slice(25, 35))
    borders = lung_borders([usual, over_the_middle])
    assert 16 <= borders[0] <= 24
    assert 21 <= borders[1] <= 25


def test_a_slice_with_one_lung_has_it_on_its_side() -> None:
    both, alone = lungs(slice(5, 16), slice(24, 35)), lungs(slice(26, 34))
    border = lung_borders([both, alone])[1]
    left = SliceMaps(alone, alone, border).masks(20, 40)[Segment.LEFT_LUNG - 1]
    right = SliceMaps(alone, alone, border).masks(20, 40)[Segment.RIGHT_LUNG - 1]
    assert left.sum() == alone.sum()
    assert not right.any()


def test_no_lungs_give_a_border_in_the_middle() -> None:
    assert lung_borders([lungs(), lungs()]) == [20, 20]


def test_lesion_outside_the_lungs_does_not_count() -> None:
    lesion = lungs(slice(0, 40))
    mask = SliceMaps(lungs(slice(5, 16)), lesion, 20).masks(20, 40)[Segment.LESION - 1]
    assert mask.sum() == 10 * 11


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_masks_lie_on_the_stored_pixels_whatever_turn_the_slice_needed(
    transpose: bool, rows: bool, columns: bool
) -> None:
    turn = Turn(transpose, rows, columns)
    upright, turned = series(count=1), series(count=1, turn=turn)
    (slice_,) = maps(upright)
    assert slice_ is not None
    expected = stored_masks(slice_, upright)[Segment.RIGHT_LUNG - 1]
    assert expected.any()
    assert np.array_equal(turn(stored_masks(slice_, turned)[Segment.RIGHT_LUNG - 1]), expected)
