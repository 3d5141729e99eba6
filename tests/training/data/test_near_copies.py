import numpy as np
import pytest
from PIL import Image

from service.imaging.decode import Slice
from tests.support.sources.lesion_sources import draw_chest
from training.data.near_copies import find_near_copies


def drawn(seed: int) -> Slice:
    return np.asarray(np.random.default_rng(seed).integers(0, 256, (12, 12)).astype(np.uint8))[np.newaxis]


def enlarged(slice_: Slice, size: tuple[int, int]) -> Slice:
    return np.asarray(Image.fromarray(slice_[0]).resize(size, Image.Resampling.BICUBIC))[np.newaxis]


def test_a_scaled_brighter_copy_is_found_and_other_slices_are_not() -> None:
    slices = [enlarged(drawn(seed), (200, 160)) for seed in range(4)]
    copy = (20 + 0.8 * enlarged(slices[2], (310, 190))).astype(np.uint8)
    assert find_near_copies(slices, [enlarged(drawn(9), (90, 90)), copy]) == [(2, 1)]


def test_two_chests_are_no_copies_although_they_look_alike() -> None:
    chests = [draw_chest(seed, lesion=bool(seed % 2))[0][np.newaxis] for seed in (1, 2)]
    mirrored = np.ascontiguousarray(np.roll(chests[1], 12, axis=2))
    assert find_near_copies(chests[:1], [mirrored]) == []


@pytest.mark.parametrize("grey", [0, 255])
def test_a_blank_slice_is_like_nothing(grey: int) -> None:
    blank = np.full((1, 40, 40), grey, np.uint8)
    assert find_near_copies([blank], [blank, drawn(1)]) == []
