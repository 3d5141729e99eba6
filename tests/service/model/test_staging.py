import numpy as np
import pytest
import torch

from service.imaging.decode import Slice
from service.model.staging import Staging, sizes_of_batches


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
    batch = Staging(torch.device("cpu"), 8, 4).gather(numbered(count))
    assert batch.dtype == torch.uint8
    assert levels(batch) == list(range(1, count + 1))


def test_the_pixels_of_a_single_slice_are_not_copied_for_a_cpu() -> None:
    ct_slice = numbered(1)[0]
    batch = Staging(torch.device("cpu"), 8, 4).gather([ct_slice])
    ct_slice[:] = 7
    assert levels(batch) == [7]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gets_batches_of_the_sizes_that_it_was_warmed_up_for() -> None:
    staging = Staging(torch.device("cuda"), 8, 4)
    for count, size in ((1, 1), (3, 4), (5, 8), (2, 2)):
        batch = staging.gather(numbered(count))
        assert batch.device.type == "cuda"
        assert len(batch) == size
        assert levels(batch)[:count] == list(range(1, count + 1))
