import threading

import pytest
import torch

from service.lanes import Lanes


@pytest.mark.parametrize(("threads", "count"), [(1, 1), (2, 2), (3, 3), (16, 4)])
def test_there_are_as_many_lanes_as_threads_up_to_a_few(threads: int, count: int) -> None:
    assert Lanes(threads).count == count


@pytest.mark.parametrize(("items", "share"), [(1, 8), (2, 4), (3, 2), (4, 2)])
def test_calls_share_the_threads(items: int, share: int) -> None:
    before = torch.get_num_threads()
    lanes = Lanes(8)
    try:
        assert lanes.map(lambda _: torch.get_num_threads(), range(items)) == [share] * items
    finally:
        torch.set_num_threads(before)
        lanes.close()


def test_calls_run_at_the_same_time_and_answer_in_order() -> None:
    lanes = Lanes(3)
    everyone_is_there = threading.Barrier(3, timeout=30)

    def tenfold(item: int) -> int:
        everyone_is_there.wait()
        return 10 * item

    assert lanes.map(tenfold, [1, 2, 3]) == [10, 20, 30]
    lanes.close()


def test_an_error_is_raised_once_all_calls_have_ended() -> None:
    lanes = Lanes(2)
    failed, ended = threading.Event(), threading.Event()

    def fail_first(item: int) -> None:
        if item == 0:
            failed.set()
            raise ValueError("the first")
        failed.wait(30)
        ended.set()

    with pytest.raises(ValueError, match="the first"):
        lanes.map(fail_first, [0, 1])
    assert ended.is_set()
    lanes.close()
