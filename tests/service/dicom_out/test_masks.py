import dataclasses

import numpy as np
import pytest

from service.dicom_out.masks import Segment, SeriesMaps, SliceMaps, interpolate
from service.imaging.orientation import Turn
from tests.support.files.ball_series import maps, series

OFFSETS = np.arange(5.0)


def constant(value: float) -> SliceMaps:
    return SliceMaps(np.full((4, 4), value, np.float32), np.full((4, 4), value / 2, np.float32), 2)


def values(filled: list[SliceMaps | None]) -> list[float | None]:
    return [None if slice_ is None else round(float(slice_.lungs.mean()), 4) for slice_ in filled]


def test_the_border_is_between_left_and_right_lung() -> None:
    lungs = np.ones((4, 4), np.float32)
    masks = SeriesMaps([SliceMaps(lungs, lungs, 1)], series(count=1)).masks(0)
    width = masks.shape[2]
    assert masks[Segment.RIGHT_LUNG - 1].sum(axis=1).tolist() == [width // 4] * masks.shape[1]
    assert masks[Segment.LEFT_LUNG - 1].sum(axis=1).tolist() == [width - width // 4] * masks.shape[1]


def test_lesion_outside_the_lungs_does_not_count() -> None:
    lungs = np.zeros((4, 4), np.float32)
    lungs[:, :2] = 1
    masks = SeriesMaps([SliceMaps(lungs, np.ones((4, 4), np.float32), 2)], series(count=1)).masks(0)
    assert np.array_equal(masks[Segment.LESION - 1], masks[Segment.RIGHT_LUNG - 1])


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_masks_lie_on_the_stored_pixels_whatever_turn_the_slice_needed(
    transpose: bool, rows: bool, columns: bool
) -> None:
    turn = Turn(transpose, rows, columns)
    upright = maps(series(count=1))
    turned = dataclasses.replace(upright, geometry=series(count=1, turn=turn))
    expected = upright.masks(0)
    assert expected[Segment.RIGHT_LUNG - 1].any()
    for segment in Segment:
        assert np.array_equal(turn(turned.masks(0)[segment - 1]), expected[segment - 1])


def test_slices_that_were_not_read_lie_between_their_neighbours() -> None:
    filled = interpolate([constant(1), None, None, None, constant(0)], [True, False, False, False, True], OFFSETS)
    assert values(filled) == [1, 0.75, 0.5, 0.25, 0]
    uneven = interpolate([constant(1), None, constant(0)], [True, False, True], np.array([0.0, 1.0, 4.0]))
    assert values(uneven) == [1, 0.75, 0]


def test_lungs_fade_out_towards_a_slice_without_lungs() -> None:
    filled = interpolate([None, None, constant(1), None, None], [True, False, True, True, False], OFFSETS)
    assert values(filled) == [None, 0.5, 1, None, None]


def test_slices_before_the_first_and_after_the_last_that_were_read_are_like_these() -> None:
    filled = interpolate([None, constant(1), None, constant(0.5), None], [False, True, False, True, False], OFFSETS)
    assert values(filled) == [1, 1, 0.75, 0.5, 0.5]
