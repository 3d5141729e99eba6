from dataclasses import replace

import numpy as np
import pytest

from training.data.ct_slices import CtSlice
from training.evaluation.lesion_scores import is_inside, score_lesions, strongest_inside_lung, to_grid
from training.evaluation.predictions import Predictions


def _slice(lesion_rows: int) -> CtSlice:
    lung = np.zeros((320, 320), np.bool_)
    lung[40:280, 40:280] = True
    lesion = np.zeros_like(lung)
    lesion[40 : 40 + lesion_rows, 40:280] = True
    return CtSlice("drawn", "a", "1", "lesions", np.zeros((320, 320), np.uint8), lesion=lesion, lung=lung)


def _predictions(slices: list[CtSlice], maps: list[np.ndarray]) -> Predictions:
    count = len(slices)
    lungs = np.stack([to_grid(slice_.lung, 80) for slice_ in slices if slice_.lung is not None]).astype(np.float16)
    heat = np.stack(maps).astype(np.float16)
    involvement = np.array([[map_[10:70, 10:70].mean()] * 3 for map_ in maps], np.float32)
    half = np.full(count, 0.5, np.float32)
    return Predictions(half, half, involvement, heat, lungs, lungs)


def test_perfect_maps_score_one() -> None:
    slices = [_slice(rows) for rows in (0, 40, 80, 120)]
    maps = [to_grid(slice_.lesion, 80).astype(float) for slice_ in slices if slice_.lesion is not None]
    scores = score_lesions(_predictions(slices, maps), slices)
    assert scores.cell_auc == scores.dice == scores.strongest_inside_lung == pytest.approx(1.0)
    assert scores.involvement_spearman == pytest.approx(1.0)
    assert scores.involvement_error == pytest.approx(0.0, abs=0.01)
    assert (scores.slices, scores.without_lungs, scores.with_lesion) == (4, 0, 3)


def test_slices_with_masks_and_without_lungs_are_counted_but_not_scored() -> None:
    slices = [_slice(80), replace(_slice(80), lung=np.zeros((320, 320), np.bool_))]
    maps = [np.zeros((80, 80))] * 2
    scores = score_lesions(_predictions(slices, maps), slices)
    assert (scores.slices, scores.without_lungs, scores.with_lesion) == (1, 1, 1)


def test_the_strongest_cells_of_covid_slices_are_counted_by_source() -> None:
    slices = [replace(_slice(80), source=name, kind="labelled", label=1) for name in ("good", "bad")]
    maps = [np.zeros((80, 80)), np.zeros((80, 80))]
    maps[0][40, 40] = maps[1][2, 2] = 1
    assert strongest_inside_lung(_predictions(slices, maps), slices) == {"good": 1.0, "bad": 0.0}


def test_a_map_of_half_the_lesion_has_the_dice_score_of_half() -> None:
    slices = [_slice(80), _slice(40)]
    half = np.zeros((80, 80))
    half[10:20, 10:70] = 1
    nearly = half.copy()
    nearly[19, 69] = 0
    scores = score_lesions(_predictions(slices, [half, nearly]), slices)
    assert scores.dice == pytest.approx((2 / 3 + 1) / 2, abs=0.001)


def test_the_strongest_cell_on_a_letter_is_not_inside() -> None:
    heat = np.zeros((80, 80), np.float32)
    heat[2, 2] = 1
    lung = np.zeros((80, 80), np.bool_)
    lung[20:60, 20:60] = True
    assert not is_inside(heat, lung)
    heat[30, 30] = 2
    assert is_inside(heat, lung)
