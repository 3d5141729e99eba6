from dataclasses import replace

import numpy as np
import pytest

from training.data.ct_slices import CtSlice
from training.evaluation.by_source import by_negatives, is_covid, predictions_by_source, shows_lesion

GREY = np.zeros((320, 320), np.uint8)
EMPTY = np.zeros((320, 320), np.bool_)
DRAWN = EMPTY.copy()
DRAWN[:20, :20] = True

COVID = CtSlice("hospital", "a", "1", "labelled", GREY, label=1)
OTHER = CtSlice("hospital", "b", "2", "labelled", GREY, label=0)
HEALTHY = replace(OTHER, name="c", finding="healthy")
CAP = replace(OTHER, name="d", finding="other disease")
LESION = CtSlice("drawn", "e", "3", "lesions", GREY, lesion=DRAWN)
NO_LESION = replace(LESION, name="f", lesion=EMPTY)
CLEAR = CtSlice("luna", "g", "4", "clear", GREY, label=0)
EVERY = [COVID, OTHER, HEALTHY, CAP, LESION, NO_LESION, CLEAR]


def test_whether_a_slice_shows_a_lesion_is_known_from_masks_clear_lungs_and_labels() -> None:
    assert [shows_lesion(slice_) for slice_ in EVERY] == [1, None, 0, None, 1, 0, 0]


def test_covid_is_compared_with_each_class_of_negatives() -> None:
    probability = np.linspace(0.1, 0.7, len(EVERY))
    compared = {
        (source, negatives): predictions.probability.round(6).tolist()
        for source, negatives, predictions in by_negatives(EVERY, probability)
    }
    assert compared == {
        ("hospital", "healthy"): [0.1, 0.3],
        ("hospital", "other disease"): [0.1, 0.4],
        ("hospital", "unknown"): [0.1, 0.2],
    }


def test_predictions_are_grouped_by_source_with_both_truths() -> None:
    probability = np.array([0.9, 0.1, 0.2, 0.5, 0.8, 0.3, 0.4], np.float32)
    sources = predictions_by_source(is_covid, EVERY, probability)
    assert sources.keys() == {"hospital"}
    assert sources["hospital"].labels.tolist() == [1, 0, 0, 0]
    assert sources["hospital"].groups.tolist() == ["1", "2", "2", "2"]
    assert sources["hospital"].probability == pytest.approx([0.9, 0.1, 0.2, 0.5], abs=1e-6)
    assert predictions_by_source(shows_lesion, EVERY, probability).keys() == {"hospital", "drawn"}
    assert predictions_by_source(shows_lesion, EVERY, probability, fewest=2) == {}
