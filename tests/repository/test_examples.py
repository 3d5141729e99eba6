"""The generated slices: the committed one is what the script draws, and it is a CT-like picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.draw_slice import draw_slice

COMMITTED = Path(__file__).parents[2] / "examples" / "slice.png"


def test_committed_slice_is_what_the_script_draws() -> None:
    with Image.open(COMMITTED) as image:
        assert image.mode == "L"
        committed = np.asarray(image, dtype=np.int16)
    # one grey level: the last bit of an FFT may differ between processors
    assert np.abs(committed - draw_slice(0)).max() <= 1


def test_equal_seeds_draw_equal_slices() -> None:
    assert np.array_equal(draw_slice(5, 128, 128), draw_slice(5, 128, 128))


def test_other_seeds_draw_other_slices() -> None:
    assert np.abs(draw_slice(0, 128, 128).astype(np.int16) - draw_slice(1, 128, 128)).mean() > 5


def test_disease_changes_patches_in_the_lungs_only() -> None:
    healthy, diseased = (draw_slice(3, 256, 256, disease=disease).astype(np.int16) for disease in (False, True))
    changed = np.abs(diseased - healthy) > 5
    assert 500 < np.count_nonzero(changed) < 0.2 * changed.size
    assert (diseased - healthy)[changed].mean() > 20
    assert np.median(healthy[changed]) < 110, "lung, not soft tissue"


@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 320), (320, 200)])
def test_any_shape_can_be_drawn(height: int, width: int) -> None:
    pixels = draw_slice(2, height, width)
    assert pixels.shape == (height, width)
    assert pixels.dtype == np.uint8
    assert pixels.max() > 240
    assert pixels[:3, :3].max() < 80, "the corner is air"
