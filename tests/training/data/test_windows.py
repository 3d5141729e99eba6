import numpy as np
import pytest

from training.data.windows import estimate_hounsfield, show, with_bone

LUNG = np.zeros((40, 40), np.float32)
LUNG[10:30, 5:35] = 1
HOUNSFIELD = np.where(LUNG > 0, -870.0, 50.0).astype(np.float32)


@pytest.mark.parametrize("window", [(-600.0, 1500.0), (-300.0, 1400.0), (-500.0, 1000.0)])
def test_hounsfield_units_are_those_of_lung_and_tissue_in_any_lung_window(window: tuple[float, float]) -> None:
    assert estimate_hounsfield(show(HOUNSFIELD, window), LUNG) == pytest.approx(HOUNSFIELD, abs=1)


def test_a_soft_tissue_window_blackens_lungs_and_keeps_tissue_apart() -> None:
    hounsfield = np.array([[-1350, -900, 0, 75, 150]], np.float32)
    assert show(hounsfield, (40, 400))[0] == pytest.approx([0, 0, 0.4, 0.5875, 0.775], abs=1e-4)


def test_bone_is_drawn_where_the_window_cut_it_off_and_nowhere_else() -> None:
    grey = show(HOUNSFIELD, (-600, 1500))
    grey[:3] = 1.0
    drawn = with_bone(HOUNSFIELD, grey, np.random.default_rng(0)) - HOUNSFIELD
    assert drawn[:3].max() > 50
    assert not drawn[3:].any()


def test_a_slice_without_lungs_keeps_its_greys_in_order() -> None:
    grey = np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40)
    assert (np.diff(estimate_hounsfield(grey, 0 * LUNG).ravel()) > 0).all()
