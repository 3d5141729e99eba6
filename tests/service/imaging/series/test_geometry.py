import itertools

import numpy as np
import pytest

from service.imaging.orientation import UPRIGHT, Turn
from service.imaging.series.geometry import VolumeGeometry


def stack(*offsets: float, turn: Turn = UPRIGHT) -> VolumeGeometry:
    """Axial slices of 4 x 6 pixels of 0.5 mm x 0.8 mm at these heights."""
    return VolumeGeometry(
        rows=4,
        columns=6,
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_spacing=(0.5, 0.8),
        positions=np.array([[-10.0, -20.0, offset] for offset in offsets]),
        turn=turn,
    )


def test_spacing_and_thicknesses_come_from_positions() -> None:
    geometry = stack(0, 1, 2, 5)
    assert geometry.spacing == 1
    assert geometry.thicknesses.tolist() == [1, 1, 2, 3]


def test_a_single_slice_has_no_spacing_and_no_volume() -> None:
    geometry = stack(7)
    assert geometry.spacing is None
    assert geometry.thicknesses.tolist() == [0]


def test_the_normal_points_to_the_head_also_of_a_slice_that_is_seen_from_above() -> None:
    geometry = stack(0, 2)
    mirrored = VolumeGeometry(4, 6, -geometry.row_direction, geometry.column_direction, (1, 1), geometry.positions)
    assert geometry.normal[2] == mirrored.normal[2] == 1
    assert mirrored.offsets.tolist() == [0, 2]


def test_the_affine_leads_from_voxels_to_the_patients_right_front_and_head() -> None:
    geometry = stack(30, 32, 34)
    column, row, slice_ = 2, 3, 1
    expected = -(-10 + 2 * 0.8), -(-20 + 3 * 0.5), 32
    assert (geometry.affine @ [column, row, slice_, 1])[:3] == pytest.approx(expected)


@pytest.mark.parametrize("steps", list(itertools.product([False, True], repeat=3)))
def test_an_upright_array_goes_back_to_the_stored_orientation(steps: tuple[bool, bool, bool]) -> None:
    stored = np.arange(24).reshape(4, 6)
    geometry = stack(0, turn=Turn(*steps))
    assert (geometry.stored(geometry.turn(stored)) == stored).all()
    upright = np.stack([geometry.turn(stored), geometry.turn(stored + 1)])
    assert (geometry.stored(upright)[1] == stored + 1).all()
