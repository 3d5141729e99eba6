import numpy as np
import pytest

from training.data.ct_slices import CtSlice
from training.evaluation.answers import Answers
from training.evaluation.lesion_scores import is_inside, score_lesions, to_grid


def _slice(lesion_rows: int) -> CtSlice:
    lung = np.zeros((320, 320), np.bool_)
    lung[40:280, 40:280] = True
    lesion = np.zeros_like(lung)
    lesion[40 : 40 + lesion_rows, 40:280] = True
    return CtSlice("drawn", "a", "1", "lesions", np.zeros((320, 320), np.uint8), lesion=lesion, lung=lung)


def _answers(slices: list[CtSlice], maps: list[np.ndarray]) -> Answers:
    count = len(slices)
    lungs = np.stack([to_grid(each.lung, 80) for each in slices if each.lung is not None]).astype(np.float16)
    heat = np.stack(maps).astype(np.float16)
    involvement = np.array([[each[10:70, 10:70].mean()] * 3 for each in maps], np.float32)
    half = np.full(count, 0.5, np.float32)
    return Answers(half, half, involvement, heat, lungs, np.zeros((count, 3), np.float32), lungs)


def test_perfect_maps_score_one() -> None:
    slices = [_slice(rows) for rows in (0, 40, 80, 120)]
    maps = [to_grid(each.lesion, 80).astype(float) for each in slices if each.lesion is not None]
    scores = score_lesions(_answers(slices, maps), slices)
    assert scores.cell_auc == scores.dice == scores.strongest_inside_lung == pytest.approx(1.0)
    assert scores.involvement_spearman == pytest.approx(1.0)
    assert scores.involvement_error == pytest.approx(0.0, abs=0.01)
    assert (scores.slices, scores.with_lesion) == (4, 3)


def test_a_map_of_half_the_lesion_has_the_dice_score_of_half() -> None:
    slices = [_slice(80), _slice(40)]
    half = np.zeros((80, 80))
    half[10:20, 10:70] = 1
    nearly = half.copy()
    nearly[19, 69] = 0
    scores = score_lesions(_answers(slices, [half, nearly]), slices)
    assert scores.dice == pytest.approx((2 / 3 + 1) / 2, abs=0.001)


def test_the_strongest_cell_on_a_letter_is_not_inside() -> None:
    heat = np.zeros((80, 80), np.float32)
    heat[2, 2] = 1
    lung = np.zeros((80, 80), np.bool_)
    lung[20:60, 20:60] = True
    assert not is_inside(heat, lung)
    heat[30, 30] = 2
    assert is_inside(heat, lung)
