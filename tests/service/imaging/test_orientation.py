"""A slice is brought upright: the patient's front at the top, the patient's right on the left."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.imaging.decode import decode
from tests.support.files.dicoms import ct, phantom

STORED = phantom()
STORED[:20, 24:40] += 300  # no symmetry is left
STORED[40:50, 4:20] += 500
EXPECTED = decode(ct(STORED))


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        pytest.param([1, 0, 0, 0, 1, 0], STORED, id="upright"),
        pytest.param([1, 0, 0, 0, 0.906, -0.423], STORED, id="gantry tilted by 25 degrees"),
        pytest.param([-1, 0, 0, 0, -1, 0], STORED[::-1, ::-1], id="half a turn (prone)"),
        pytest.param([1, 0, 0, 0, -1, 0], STORED[::-1], id="upside down"),
        pytest.param([-1, 0, 0, 0, 1, 0], STORED[:, ::-1], id="mirrored"),
        pytest.param([0, 1, 0, 1, 0, 0], STORED.T, id="transposed"),
        pytest.param([0, -1, 0, 1, 0, 0], STORED.T[:, ::-1], id="a quarter turn"),
        pytest.param([0, 0, 0, 0, 0, 0], STORED, id="no directions"),
        pytest.param([1, 0, 0], STORED, id="half of it"),
        pytest.param("", STORED, id="empty"),
    ],
)
def test_a_turned_slice_is_brought_upright(orientation: Any, stored: NDArray[np.uint16]) -> None:
    grey = decode(ct(np.ascontiguousarray(stored), ImageOrientationPatient=orientation))
    np.testing.assert_array_equal(grey, EXPECTED)
