import io

import numpy as np
import pytest
from PIL import Image

from service.imaging.overlay import grey_image, heatmap_image, overlay, png, scale_by_peak

SLICE = np.full((1, 90, 160), 100, np.uint8)


def pixels(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.asarray(image).astype(np.int64)


def test_the_overlay_has_the_slices_own_size_and_colour_only_where_the_evidence_is() -> None:
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 0], heatmap[3, 3] = 5, -5
    image = overlay(SLICE, heatmap)
    assert (image.size, image.mode) == ((160, 90), "RGB")
    values = pixels(image)
    assert np.ptp(values[5, 5]) > 50
    assert values[85, 155].tolist() == [100, 100, 100]  # evidence against is not shown


def test_weak_evidence_beside_strong_evidence_against_stays_faint() -> None:
    strong, weak = (np.array([[value, -10.0], [-10.0, -10.0]], np.float32) for value in (10, 1))
    shift = [np.abs(pixels(overlay(SLICE, heatmap))[0, 0] - 100).max() for heatmap in (strong, weak)]
    assert shift[0] > 4 * shift[1] > 0


def test_a_map_without_evidence_leaves_the_slice_as_it_is() -> None:
    heatmap = np.zeros((14, 14), np.float32)
    assert np.array_equal(pixels(overlay(SLICE, heatmap)), np.repeat(pixels(grey_image(SLICE))[..., None], 3, axis=2))
    assert set(pixels(heatmap_image(heatmap)).ravel()) == {128}


def test_the_bare_map_has_a_pixel_a_position() -> None:
    image = heatmap_image(np.array([[2.0, 0.0, -2.0]], np.float32))
    assert (image.mode, image.size, pixels(image).tolist()) == ("L", (3, 1), [[255, 128, 1]])


def test_the_colours_get_lighter_with_the_evidence() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[np.newaxis]
    grey = pixels(overlay(np.zeros((1, 16, 256), np.uint8), ramp).convert("L"))[8]
    assert np.all(np.diff(grey) >= -1)
    assert grey[-1] > 100


@pytest.mark.parametrize("side", [64, 100])
def test_a_longest_side_makes_pictures_smaller_and_never_larger(side: int) -> None:
    heatmap = np.ones((4, 4), np.float32)
    assert max(overlay(SLICE, heatmap, side).size) == side
    assert overlay(SLICE, heatmap, 1000).size == (160, 90)


def test_relative_keeps_signs() -> None:
    assert scale_by_peak(np.array([[1.0, -4.0]], np.float32)).tolist() == [[0.25, -1.0]]


def test_png_is_a_png() -> None:
    assert Image.open(io.BytesIO(png(grey_image(SLICE)))).format == "PNG"
