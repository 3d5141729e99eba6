from dataclasses import replace

import pytest

from training.data.covid_ct import Split
from training.data.folds import FoldPlan, assign_folds, each_fold
from training.errors import TrainingError


def test_patients_never_straddle_folds_and_every_fold_has_both_classes(split: Split, plan: FoldPlan) -> None:
    folds = assign_folds(split, replace(plan, folds=3, repeats=4))
    assert folds.shape == (4, 24)
    for of_repeat in folds.tolist():
        of_group = set(zip(plan.groups, of_repeat, strict=True))
        assert len(of_group) == len(set(plan.groups))
        for fold in range(3):
            labels = [each.label for each, its in zip(split.slices, of_repeat, strict=True) if its == fold]
            assert sum(labels) == len(labels) / 2
    assert len({tuple(of_repeat) for of_repeat in folds.tolist()}) == 4


@pytest.mark.parametrize(
    ("folds", "repeats", "message"), [(7, 1, "--folds 7: must be 2 to 6"), (1, 1, "--folds 1"), (2, 0, "--repeats 0")]
)
def test_a_deal_that_is_not_possible_is_refused(
    split: Split, plan: FoldPlan, folds: int, repeats: int, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        assign_folds(split, replace(plan, folds=folds, repeats=repeats))


def test_each_fold_of_each_repeat_holds_out_the_slices_dealt_to_it(split: Split, plan: FoldPlan) -> None:
    folds = assign_folds(split, replace(plan, folds=3, repeats=2))
    parts = list(each_fold(folds))
    assert [(repeat, fold) for repeat, fold, _ in parts] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for repeat, fold, held_out in parts:
        assert held_out.nonzero().flatten().tolist() == [i for i, its in enumerate(folds[repeat]) if its == fold]
        assert 0 < held_out.sum() < 24
