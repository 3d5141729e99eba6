from collections.abc import Sequence

import numpy as np

from training.data.covid_ct import LabelledSlice, Split
from training.data.papers import group_by_paper


def split_of(labelled: Sequence[tuple[str, int]]) -> Split:
    blank = np.zeros((1, 8, 8), np.uint8)
    return Split("train", tuple(LabelledSlice(path, label, path, "PNG L", blank) for path, label in labelled))


def test_covid_slices_are_together_by_paper_and_the_others_by_patient() -> None:
    slices = {
        "CT_COVID/2020.02.10.20021584-p6-52%0.png": "2020.02.10.20021584",
        "CT_COVID/2020.02.10.20021584-p6-52%1.png": "2020.02.10.20021584",
        "CT_COVID/2020.02.10.2002158-p6.png": "2020.02.10.2002158",
        "CT_COVID/kjr-21-e24-g001-l-a.jpg": "kjr",
        "CT_COVID/bmj.m606.full-p1.png": "bmj.m606.full",
        "CT_COVID/PIIS0140673620301549%0.png": "PIIS0140673620301549",
        "CT_COVID/med.png": "med",
    }
    others = {"CT_NonCOVID/14.png": "NonCOVID a", "CT_NonCOVID/35%1.jpg": "NonCOVID b"}
    split = split_of([(path, 1) for path in slices] + [(path, 0) for path in others])
    patients = [f"COVID Patient {i}" for i in range(len(slices))] + list(others.values())
    assert group_by_paper(split, patients) == (*(f"COVID {paper}" for paper in slices.values()), *others.values())


def test_papers_that_share_a_patient_are_one_group() -> None:
    split = split_of([(f"CT_COVID/{name}.png", 1) for name in ("a-1", "a-2", "b-1", "b-2", "c-1")])
    first, second, third, fourth, alone = group_by_paper(split, ("1", "2", "2", "3", "4"))
    assert first == second == third == fourth != alone


def test_a_patient_of_both_classes_numbers_is_not_joined_by_a_name() -> None:
    split = split_of([("CT_COVID/a-1.png", 1), ("CT_NonCOVID/a-1.png", 0)])
    assert group_by_paper(split, ("COVID 1", "NonCOVID 1")) == ("COVID a", "NonCOVID 1")
