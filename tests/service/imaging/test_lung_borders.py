import numpy as np
from numpy.typing import NDArray

from service.imaging.lung_borders import lung_borders


def lungs(*columns: slice) -> NDArray[np.float32]:
    probability = np.zeros((20, 40), np.float32)
    for lung in columns:
        probability[5:15, lung] = 1
    return probability


def test_the_border_is_between_the_lungs_also_where_one_reaches_over_the_middle() -> None:
    usual, over_the_middle = lungs(slice(5, 16), slice(24, 35)), lungs(slice(5, 21), slice(25, 35))
    borders = lung_borders([usual, over_the_middle])
    assert 16 <= borders[0] <= 24
    assert 21 <= borders[1] <= 25


def test_a_slice_with_one_lung_has_it_on_its_side() -> None:
    both, alone = lungs(slice(5, 16), slice(24, 35)), lungs(slice(26, 34))
    assert lung_borders([both, alone])[1] <= 26


def test_no_lungs_give_a_border_in_the_middle() -> None:
    assert lung_borders([lungs(), lungs()]) == [20, 20]
