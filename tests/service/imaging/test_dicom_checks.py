"""What the slice is: axial and upright, or refused with its own code."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from service.errors import UnusableImageError
from service.imaging.decode import decode
from tests.support.files.dicoms import ct, phantom

STORED = phantom()
STORED[:20, 24:40] += 300  # no symmetry is left
STORED[40:50, 4:20] += 500
EXPECTED = decode(ct(STORED))


@pytest.mark.parametrize(
    "image_type", [["ORIGINAL", "PRIMARY", "LOCALIZER"], ["ORIGINAL", "PRIMARY", "LOCALIZER", "X"]]
)
def test_a_localizer_is_refused_with_what_to_send(image_type: list[str]) -> None:
    with pytest.raises(UnusableImageError, match="axial slice") as caught:
        decode(ct(STORED, ImageType=image_type))
    assert caught.value.code == "localizer"


@pytest.mark.parametrize(
    "orientation",
    [
        pytest.param([1, 0, 0, 0, 0, -1], id="coronal"),
        pytest.param([0, 1, 0, 0, 0, -1], id="sagittal"),
        pytest.param([1, 0, 0, 0, 0.7071, -0.7071], id="oblique by 45 degrees"),
    ],
)
def test_a_slice_that_is_not_axial_is_refused_with_what_to_send(orientation: list[float]) -> None:
    with pytest.raises(UnusableImageError, match="axial slice") as caught:
        decode(ct(STORED, ImageOrientationPatient=orientation))
    assert caught.value.code == "not_axial"


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
    ],
)
def test_a_turned_slice_is_brought_upright(orientation: list[float], stored: NDArray[np.uint16]) -> None:
    """With the patient's front above and the patient's right at the left; the positions follow from the directions."""
    found = decode(ct(np.ascontiguousarray(stored), ImageOrientationPatient=orientation))
    np.testing.assert_array_equal(found, EXPECTED)


@pytest.mark.parametrize("orientation", [[0, 0, 0, 0, 0, 0], [1, 0, 0], "", None])
def test_an_orientation_that_is_none_means_upright(orientation: Any) -> None:
    changes = {} if orientation is None else {"ImageOrientationPatient": orientation}
    np.testing.assert_array_equal(decode(ct(STORED, **changes)), EXPECTED)


def test_the_orientation_of_an_enhanced_file_is_in_its_functional_groups() -> None:
    plane, group = Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    group.PlaneOrientationSequence = Sequence([plane])
    with pytest.raises(UnusableImageError) as caught:
        decode(ct(STORED, SharedFunctionalGroupsSequence=Sequence([group])))
    assert caught.value.code == "not_axial"
