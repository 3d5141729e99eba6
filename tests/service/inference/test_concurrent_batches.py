import asyncio
from collections.abc import Sequence

import pytest

from service.inference.batcher import Batcher
from tests.service.inference.batches import submitted

pytestmark = pytest.mark.anyio


class Steps:
    """Runs each item until it is told to end it; remembers how many batches the machine was divided among."""

    def __init__(self) -> None:
        self.ends: dict[int, asyncio.Event] = {}
        self.shares: dict[int, int] = {}
        self.changed = asyncio.Condition()

    async def __call__(self, items: Sequence[int], among: int) -> Sequence[int | Exception]:
        (item,) = items
        self.ends[item] = asyncio.Event()
        async with self.changed:
            self.shares[item] = among
            self.changed.notify_all()
        await self.ends[item].wait()
        return [item]


def side_by_side(run: Steps, count: int) -> "Batcher[int, int]":
    batcher = Batcher[int, int](run, max_size=1, max_waiting=100, max_concurrent_batches=count)
    batcher.start()
    return batcher


async def ended(run: Steps, item: int, task: "asyncio.Task[int]") -> None:
    run.ends[item].set()
    await asyncio.wait_for(task, 5)


async def started(run: Steps, count: int) -> None:
    async with run.changed, asyncio.timeout(5):
        await run.changed.wait_for(lambda: len(run.shares) >= count)


async def test_a_lone_item_gets_the_whole_machine_and_those_that_waited_for_it_share() -> None:
    run = Steps()
    batcher = side_by_side(run, count=2)
    (first,) = await submitted(batcher, 1)
    await started(run, 1)
    second, third = await submitted(batcher, 2, 3)
    assert run.shares == {1: 1}, "there is no room beside one that has everything"
    await ended(run, 1, first)
    await started(run, 3)
    assert run.shares == {1: 1, 2: 2, 3: 2}
    run.ends[2].set()
    run.ends[3].set()
    await asyncio.gather(second, third)
    await batcher.close()


async def test_one_that_ends_makes_room_for_the_next_while_its_neighbour_goes_on() -> None:
    run = Steps()
    batcher = side_by_side(run, count=2)
    tasks = await submitted(batcher, 1, 2, 3)
    await started(run, 2)
    await ended(run, 2, tasks[1])
    await started(run, 3)
    assert run.shares == {1: 2, 2: 2, 3: 2}
    for item in (1, 3):
        run.ends[item].set()
    await asyncio.gather(*tasks)
    await batcher.close()


async def test_more_room_is_divided_further_as_more_items_wait() -> None:
    run = Steps()
    batcher = side_by_side(run, count=4)
    pair = await submitted(batcher, 1, 2)
    await started(run, 2)
    others = await submitted(batcher, 3, 4, 5, 6)
    assert run.shares == {1: 2, 2: 2}
    await ended(run, 1, pair[0])
    await started(run, 4)
    assert run.shares == {1: 2, 2: 2, 3: 4, 4: 4}, "half of the machine is left, and five want some of it"
    for item in (2, 3, 4):
        await ended(run, item, [*pair, *others][item - 1])
    await started(run, 6)
    for item in (5, 6):
        run.ends[item].set()
    await asyncio.gather(*pair, *others)
    await batcher.close()


class Clock:
    """Stands in for the module `time`; goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("service.inference.batcher.time", clock)
    return clock


async def half_of_a_pair(clock: Clock, seconds: float) -> "tuple[Steps, Batcher[int, int], asyncio.Task[int]]":
    """Item 1 runs for a second alone, then 2 and 3 as a pair for some seconds, and 2 ends; the task of 3 is last."""
    run = Steps()
    batcher = side_by_side(run, count=2)
    (alone,) = await submitted(batcher, 1)
    await started(run, 1)
    clock.seconds += 1
    await ended(run, 1, alone)
    first, second = await submitted(batcher, 2, 3)
    await started(run, 3)
    await ended(run, 2, first)
    clock.seconds += seconds
    return run, batcher, second


async def test_a_single_item_waits_for_one_of_a_pair_that_nears_its_end_and_then_gets_the_whole_machine(
    clock: Clock,
) -> None:
    run, batcher, half = await half_of_a_pair(clock, seconds=1.1)
    (single,) = await submitted(batcher, 4)
    await asyncio.sleep(0)  # the worker sees it
    assert batcher.waiting() == 1
    await ended(run, 3, half)
    await started(run, 4)
    assert run.shares[4] == 1
    await ended(run, 4, single)
    await batcher.close()


async def test_a_single_item_starts_beside_one_of_a_pair_that_began_only_just_now(clock: Clock) -> None:
    run, batcher, half = await half_of_a_pair(clock, seconds=0.9)
    (single,) = await submitted(batcher, 4)
    await started(run, 4)
    assert run.shares[4] == 2
    await ended(run, 3, half)
    await ended(run, 4, single)
    await batcher.close()


async def test_a_second_item_ends_the_wait_for_the_whole_machine(clock: Clock) -> None:
    run, batcher, half = await half_of_a_pair(clock, seconds=1.1)
    tasks = await submitted(batcher, 4, 5)
    await started(run, 4)
    assert run.shares[4] == 2
    await ended(run, 3, half)
    await started(run, 5)
    for item, task in zip((4, 5), tasks, strict=True):
        await ended(run, item, task)
    await batcher.close()


async def test_a_batch_that_throws_does_not_harm_the_one_beside_it() -> None:
    gate = asyncio.Event()

    async def run(items: Sequence[int], _: int) -> Sequence[int | Exception]:
        if items == [13]:
            raise ValueError("unlucky")
        await gate.wait()
        return list(items)

    batcher = Batcher[int, int](run, max_size=1, max_waiting=8, max_concurrent_batches=2)
    batcher.start()
    fine, unlucky = await submitted(batcher, 1, 13)
    with pytest.raises(ValueError, match="unlucky"):
        await asyncio.wait_for(unlucky, 5)
    gate.set()
    assert await asyncio.wait_for(fine, 5) == 1
    await batcher.close(5)


async def test_closing_waits_for_all_that_run_side_by_side() -> None:
    run = Steps()
    batcher = side_by_side(run, count=2)
    tasks = await submitted(batcher, 1, 2)
    await started(run, 2)
    closing = asyncio.create_task(batcher.close())
    await ended(run, 1, tasks[0])
    assert not closing.done()
    run.ends[2].set()
    await asyncio.wait_for(closing, 5)
    assert [task.result() for task in tasks] == [1, 2]
