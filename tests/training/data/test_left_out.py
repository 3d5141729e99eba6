import numpy as np
import pytest

from training.data.ct_slices import CtSlice, Kind
from training.data.left_out import choose_left_out
from training.errors import TrainingError


def _slice(source: str, group: str, name: str, kind: Kind = "labelled") -> CtSlice:
    return CtSlice(source, name, group, kind, np.zeros((4, 4), np.uint8), label=0)


def test_a_named_source_is_left_out_whole_and_groups_of_others_stay_together() -> None:
    slices = [_slice("hospital", str(i), str(i)) for i in range(3)]
    slices += [_slice("covid-ct", f"paper {i // 2}", str(i)) for i in range(80)]
    left_out = choose_left_out(slices, ["hospital"])
    assert all(left_out[:3])
    papers = left_out[3:]
    assert papers[::2] == papers[1::2]
    assert 0 < sum(papers) < len(papers) / 2


def test_clear_lungs_are_never_left_out() -> None:
    slices = [_slice("hospital", "a", "a"), *(_slice("clear", str(i), str(i), "clear") for i in range(20))]
    assert not any(choose_left_out(slices, ["hospital"])[1:])


def test_an_unknown_source_is_refused_with_those_there_are() -> None:
    with pytest.raises(TrainingError, match="--leave-out nowhere: no such source; there are hospital"):
        choose_left_out([_slice("hospital", "a", "a")], ["nowhere"])
