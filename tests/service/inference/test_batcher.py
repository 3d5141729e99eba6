import asyncio
import random
from collections.abc import Sequence

import pytest

from service.inference.batcher import Batcher, ClosedError, QueueFullError
from tests.service.inference.batches import submitted

pytestmark = pytest.mark.anyio


class Squares:
    """Squares its items once it is let through; remembers its batches."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = asyncio.Event()
        self.batches: list[list[int]] = []

    async def __call__(self, items: Sequence[int], _: int) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        self.running.set()
        await self.gate.wait()
        if 13 in items:
            raise ValueError("unlucky")
        return [ArithmeticError("odd one out") if item < 0 else item * item for item in items]


def make(run: Squares, max_size: int = 4, max_waiting: int = 100) -> "Batcher[int, int]":
    batcher = Batcher[int, int](run, max_size=max_size, max_waiting=max_waiting)
    batcher.start()
    return batcher


async def test_everyone_gets_the_answer_to_their_own_item_in_any_order() -> None:
    run = Squares()
    run.gate.set()
    batcher = make(run, max_waiting=200)
    items = random.sample(range(100, 10_000), 200)
    answers = await asyncio.gather(*await submitted(batcher, *items[:100]), *await submitted(batcher, *items[100:]))
    assert answers == [item * item for item in items]
    assert max(map(len, run.batches)) == 4
    await batcher.close()


async def test_an_item_that_finds_nothing_running_starts_at_once_alone() -> None:
    run = Squares()
    batcher = make(run)
    (task,) = await submitted(batcher, 3)
    await asyncio.wait_for(run.running.wait(), 5)
    assert run.batches == [[3]]
    run.gate.set()
    assert await task == 9
    await batcher.close()


async def test_items_that_arrive_during_a_batch_share_the_next_one() -> None:
    run = Squares()
    batcher = make(run)
    first = await submitted(batcher, 1)
    await run.running.wait()
    later = await submitted(batcher, 2, 3, 4, 5, 6)
    assert batcher.waiting() == 5
    run.gate.set()
    await asyncio.gather(*first, *later)
    assert run.batches == [[1], [2, 3, 4, 5], [6]]
    await batcher.close()


async def test_a_batch_that_throws_fails_its_own_items_and_the_worker_lives_on() -> None:
    run = Squares()
    batcher = make(run, max_size=2)
    first = await submitted(batcher, 1)
    await run.running.wait()
    unlucky, fine = await submitted(batcher, 13, 2), await submitted(batcher, 3, 4)
    run.gate.set()
    assert await first[0] == 1
    for task in unlucky:
        with pytest.raises(ValueError, match="unlucky"):
            await task
    assert [await task for task in fine] == [9, 16]
    await batcher.close()


async def test_an_exception_in_the_place_of_a_result_reaches_its_item_alone() -> None:
    run = Squares()
    batcher = make(run)
    first = await submitted(batcher, 1)
    await run.running.wait()
    good, bad, also_good = await submitted(batcher, 2, -1, 3)
    run.gate.set()
    await first[0]
    with pytest.raises(ArithmeticError):
        await bad
    assert (await good, await also_good) == (4, 9)
    await batcher.close()


async def test_a_caller_that_is_cancelled_while_waiting_frees_its_place_and_is_never_run() -> None:
    run = Squares()
    batcher = make(run, max_waiting=2)
    first = await submitted(batcher, 1)
    await run.running.wait()
    leaving, staying = await submitted(batcher, 2, 3)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert batcher.waiting() == 1
    (replacement,) = await submitted(batcher, 4)
    run.gate.set()
    assert [await first[0], await staying, await replacement] == [1, 9, 16]
    assert run.batches == [[1], [3, 4]]
    await batcher.close()


async def test_a_caller_that_is_cancelled_during_its_batch_disturbs_nobody() -> None:
    run = Squares()
    batcher = make(run)
    first = await submitted(batcher, 1)
    await run.running.wait()
    run.running.clear()
    first[0].cancel()
    second = await submitted(batcher, 2)
    run.gate.set()
    assert await second[0] == 4
    await batcher.close()


async def test_a_full_queue_refuses_and_takes_items_again_when_there_is_room() -> None:
    run = Squares()
    batcher = make(run, max_waiting=2)
    tasks = await submitted(batcher, 1)
    await run.running.wait()
    tasks += await submitted(batcher, 2, 3)
    with pytest.raises(QueueFullError):
        await batcher.submit(4)
    run.gate.set()
    assert [await task for task in tasks] == [1, 4, 9]
    assert (await batcher.submit(4)).result == 16
    await batcher.close()


async def test_closing_answers_those_that_wait_and_refuses_those_that_come() -> None:
    run = Squares()
    batcher = make(run, max_size=1)
    tasks = await submitted(batcher, 1)
    await run.running.wait()
    tasks += await submitted(batcher, 2, 3)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        await batcher.submit(4)
    run.gate.set()
    await closing
    assert [task.result() for task in tasks] == [1, 4, 9]


async def test_a_batch_with_a_wrong_count_of_results_fails_its_items_and_the_worker_lives_on() -> None:
    async def run(items: Sequence[int], _: int) -> Sequence[int | Exception]:
        return list(items)[:-1] if 0 in items else list(items)

    batcher = Batcher[int, int](run, max_size=4, max_waiting=8)
    batcher.start()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="0 results"):
            await asyncio.wait_for(batcher.submit(0), 5)
        assert (await asyncio.wait_for(batcher.submit(3), 5)).result == 3
    await batcher.close(5)


async def test_closing_ends_at_its_timeout_and_tells_everyone_who_is_left() -> None:
    running = asyncio.Event()

    async def hang(items: Sequence[int], _: int) -> Sequence[int | Exception]:
        running.set()
        await asyncio.Event().wait()
        return []

    batcher = Batcher[int, int](hang, max_size=1, max_waiting=8)
    batcher.start()
    waiters = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
    await asyncio.wait_for(running.wait(), 5)
    assert batcher.running_seconds > 0
    await asyncio.wait_for(batcher.close(0.05), 5)
    ends = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 5)
    assert [type(end) for end in ends] == [ClosedError] * 3
    assert not batcher.is_alive
