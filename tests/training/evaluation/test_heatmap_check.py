from dataclasses import replace

import numpy as np

from tests.support.sources.lesion_sources import draw_chest
from training.data.ct_slices import CtSlice
from training.evaluation.answers import Answers
from training.evaluation.heatmap_check import (
    SHARE,
    cover,
    score_covering,
    strongest_inside_lung,
    strongest_inside_segmented_lung,
)
from training.evaluation.lesion_scores import to_grid


def _slices() -> tuple[list[CtSlice], Answers]:
    """Two drawn chests with lesions; the first map is strongest in a lesion, the second on a letter in a corner."""
    slices, lungs, maps = [], [], []
    for seed in (0, 1):
        grey, lung, lesion = draw_chest(seed, lesion=True, size=320)
        slices.append(CtSlice(f"source-{seed}", f"{seed}.png", str(seed), "labelled", grey, label=1))
        lungs.append(to_grid(lung, 80))
        maps.append(to_grid(lesion, 80).astype(np.float32))
    maps[1][2, 2] = 2.0
    found = np.stack(lungs).astype(np.float16)
    nothing = np.zeros((2, 3), np.float32)
    probability = np.array([0.9, 0.8], np.float32)
    ones = np.ones(2, np.float32)
    return slices, Answers(probability, ones, nothing, np.stack(maps).astype(np.float16), found, nothing, found)


def test_a_map_that_is_strongest_on_a_letter_is_found_by_both_ways() -> None:
    slices, answers = _slices()
    expected = {"source-0": 1.0, "source-1": 0.0}
    assert strongest_inside_lung(answers, slices) == expected
    assert strongest_inside_segmented_lung(answers, slices) == expected


def test_a_slice_whose_lungs_are_hardly_found_counts_for_the_finder_and_not_for_the_segmentation() -> None:
    slices, answers = _slices()
    small = answers.found_lungs.copy()
    small[:, 8:] = 0
    bright = [replace(each, grey=np.full_like(each.grey, 200)) for each in slices]
    assert set(strongest_inside_lung(replace(answers, found_lungs=small), bright)) == {"source-0", "source-1"}
    assert strongest_inside_segmented_lung(answers, bright) == {}


def test_the_strongest_fifth_of_the_lung_is_covered_and_nothing_else() -> None:
    slices, answers = _slices()
    covered = cover(answers, slices, seed=0)
    lung = answers.lungs[0] > 0.5
    for each in covered.values():
        changed = each[0].grey != slices[0].grey
        assert not changed[:40].any()
        cells = changed.reshape(80, 4, 80, 4).any((1, 3))
        assert abs(cells.sum() - SHARE * lung.sum()) <= 0.05 * lung.sum()
    lesion = answers.heatmap[0] > 0.5
    gone = (covered["strongest"][0].grey != slices[0].grey).reshape(80, 4, 80, 4).any((1, 3))
    assert gone[lesion].mean() > 0.95


def test_covering_counts_the_slices_whose_strongest_cells_carry_the_answer() -> None:
    slices, plain = _slices()
    strongest = replace(plain, lesion_probability=np.array([0.1, 0.7], np.float32))
    random = replace(plain, lesion_probability=np.array([0.8, 0.6], np.float32))
    covered = {"strongest": strongest, "random": random}
    test = score_covering(plain, covered, slices, threshold=0.5)
    assert test is not None
    assert (test.count, test.share) == (2, 0.5)
    assert round(test.strongest_drop, 3) == 0.45
    assert round(test.random_drop, 3) == 0.15
    assert score_covering(plain, covered, slices, threshold=0.95) is None
