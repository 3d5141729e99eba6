import numpy as np
import pytest
from PIL import Image

from service.imaging.overlay import grey_image, map_image, overlay, with_colour_bar

SLICE = np.full((1, 90, 160), 100, np.uint8)


def pixels(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.asarray(image).astype(np.int64)


def corner(value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A map of 4 x 4 with one value in the upper left."""
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = value
    return values


def test_the_overlay_has_the_slices_own_size_and_colour_only_where_the_values_are() -> None:
    image = overlay(SLICE, corner(1))
    assert (image.size, image.mode) == ((160, 90), "RGB")
    values = pixels(image)
    assert np.ptp(values[5, 5]) > 50
    assert values[85, 155].tolist() == [100, 100, 100]


def test_the_scale_is_the_same_in_every_slice() -> None:
    alone, beside_a_stronger_one = corner(0.2), corner(0.2)
    beside_a_stronger_one[3, 3] = 1
    first, second = (pixels(overlay(SLICE, values)) for values in (alone, beside_a_stronger_one))
    assert np.array_equal(first[:40, :60], second[:40, :60])
    shift = [np.abs(pixels(overlay(SLICE, corner(value)))[2, 2] - 100).max() for value in (1, 0.2)]
    assert shift[0] > 4 * shift[1] > 0


def test_a_map_without_values_leaves_the_slice_as_it_is() -> None:
    plain = np.repeat(pixels(grey_image(SLICE))[..., None], 3, axis=2)
    for value in (0.0, -0.7):
        heatmap = np.full((14, 14), value, np.float32)
        assert np.array_equal(pixels(overlay(SLICE, heatmap)), plain)
        assert set(pixels(map_image(heatmap)).ravel()) == {0}


def test_a_white_line_is_drawn_where_the_map_reaches_a_quarter() -> None:
    ramp = np.linspace(0, 1, 161, dtype=np.float32)[np.newaxis]
    columns = np.flatnonzero((pixels(overlay(SLICE, ramp))[40] == 255).all(1))
    assert len(columns) == 1
    assert columns[0] == pytest.approx(0.25 * 160, abs=2)
    below = np.full((4, 4), 0.24, np.float32)
    assert not (pixels(overlay(SLICE, below)) == 255).all(2).any()


def test_the_outline_of_the_lungs_is_blue_and_only_there_where_lungs_are_given() -> None:
    lungs = np.zeros((4, 8), np.float32)
    lungs[:, :4] = 1
    nothing = np.zeros((4, 8), np.float32)
    red, _, blue = np.moveaxis(pixels(overlay(SLICE, nothing, lungs=lungs)), 2, 0)
    columns = np.unique(np.argwhere(blue > red)[:, 1])
    assert columns.tolist() == [80], "the middle"
    assert not (pixels(overlay(SLICE, nothing))[..., 2] > 100).any()


def test_lines_are_wider_in_larger_pictures() -> None:
    ramp = np.linspace(0, 1, 161, dtype=np.float32)[np.newaxis]
    large = np.full((1, 100, 2048), 100, np.uint8)
    assert 3 <= np.count_nonzero((pixels(overlay(large, ramp))[40] > 150).all(1)) <= 6


def test_the_bare_map_has_a_pixel_a_position() -> None:
    image = map_image(np.array([[1.0, 0.5, 0.0, -0.5]], np.float32))
    assert (image.mode, image.size, pixels(image).tolist()) == ("L", (4, 1), [[255, 128, 0, 0]])


def test_the_colours_get_lighter_with_the_value() -> None:
    ramp = np.linspace(0, 0.24, 256, dtype=np.float32)[np.newaxis]
    ramp = np.concatenate([ramp, np.linspace(0.3, 1, 256, dtype=np.float32)[np.newaxis]], 1)
    grey = pixels(overlay(np.zeros((1, 16, 512), np.uint8), ramp).convert("L"))[8]
    assert np.all(np.diff(grey[:250]) >= -1)
    assert np.all(np.diff(grey[262:]) >= -1)
    assert grey[-1] > 100


@pytest.mark.parametrize("shape", [(16, 16), (90, 160), (700, 500)])
def test_the_colour_bar_goes_from_0_at_the_foot_to_1_and_leaves_the_picture_as_it_is(shape: tuple[int, int]) -> None:
    picture = overlay(np.full((1, *shape), 100, np.uint8), corner(0.8))
    framed = with_colour_bar(picture)
    assert np.array_equal(pixels(framed)[: shape[0], : shape[1]], pixels(picture))
    assert framed.height == max(shape[0], 70)
    unit = (framed.width - shape[1]) // 5
    bar = pixels(framed.convert("L"))[:, shape[1] + unit + unit // 2]
    coloured = np.flatnonzero(bar > 20)
    assert bar[coloured[0]] > 230, "yellow"
    assert bar[coloured[-1]] < 60, "purple"
    numbers = pixels(framed.convert("L"))[:, shape[1] + 5 * unit // 2 :].max(1)
    assert np.count_nonzero(np.diff((numbers > 100).astype(int)) == 1) == 5, "numbers, one below the other"


@pytest.mark.parametrize(("size", "framed"), [((16, 48_000), (66, 48_000)), ((48_000, 16), (48_050, 70))])
def test_the_colour_bar_of_a_long_picture_is_narrow(size: tuple[int, int], framed: tuple[int, int]) -> None:
    assert with_colour_bar(Image.new("RGB", size)).size == framed


@pytest.mark.parametrize("side", [64, 100])
def test_a_longest_side_makes_pictures_smaller_and_never_larger(side: int) -> None:
    heatmap = np.ones((4, 4), np.float32)
    assert max(overlay(SLICE, heatmap, side).size) == side
    assert overlay(SLICE, heatmap, 1000).size == (160, 90)
