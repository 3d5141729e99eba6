import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from service.imaging.decode import Slice
from service.model.staging import Staging, sizes_of_batches
from tests.service.model.imitated_cuda import ImitatedCuda


@pytest.mark.parametrize(
    ("max_size", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (32, (1, 2, 4, 8, 16, 32)), (33, (1, 2, 4, 8, 16, 32, 33))],
)
def test_sizes_double_up_to_the_largest(max_size: int, sizes: tuple[int, ...]) -> None:
    assert sizes_of_batches(max_size) == sizes


def numbered(count: int) -> list[Slice]:
    return [np.full((1, 4, 4), number, np.uint8) for number in range(1, count + 1)]


def levels(batch: torch.Tensor) -> list[int]:
    return [int(row.max()) for row in batch]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_cpu_gets_as_many_slices_as_there_are(count: int) -> None:
    with Staging(torch.device("cpu"), 8, 4).gather(numbered(count)) as batch:
        assert batch.dtype == torch.uint8
        assert levels(batch) == list(range(1, count + 1))


def test_the_pixels_of_a_single_slice_are_not_copied_for_a_cpu() -> None:
    ct_slice = numbered(1)[0]
    with Staging(torch.device("cpu"), 8, 4).gather([ct_slice]) as batch:
        ct_slice[:] = 7
        assert levels(batch) == [7]


def test_slots_give_batches_of_the_sizes_that_were_warmed_up(imitated_cuda: ImitatedCuda) -> None:
    staging = Staging(torch.device("cpu"), 8, 4, slots=2)
    for count, size in ((1, 1), (3, 4), (5, 8), (2, 2)):
        with staging.gather(numbered(count)) as batch:
            assert len(batch) == size
            assert levels(batch)[:count] == list(range(1, count + 1))


def test_a_batch_keeps_its_memory_while_others_are_gathered(imitated_cuda: ImitatedCuda) -> None:
    staging = Staging(torch.device("cpu"), 8, 4, slots=2)
    with staging.gather(numbered(2)) as first:
        for _ in range(3):
            with staging.gather(numbered(4)) as second:
                assert levels(second) == [1, 2, 3, 4]
        assert levels(first) == [1, 2]


def test_gathering_waits_for_a_slot_even_if_the_batch_in_it_fails(imitated_cuda: ImitatedCuda) -> None:
    staging = Staging(torch.device("cpu"), 8, 4, slots=1)
    trying = threading.Event()

    def gather() -> list[int]:
        trying.set()
        with staging.gather(numbered(3)) as batch:
            return levels(batch)[:3]

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="this batch"), staging.gather(numbered(1)):  # noqa: PT012 - one step
            waiting = pool.submit(gather)
            trying.wait(5)
            with pytest.raises(TimeoutError):
                waiting.result(0.05)
            raise ValueError("this batch")
        assert waiting.result(5) == [1, 2, 3]
