import numpy as np
import pytest
import torch

from service.imaging.decode import Slice
from service.model.batches import sizes_of_batches, to_device

CPU = torch.device("cpu")


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
    batch = to_device(numbered(count), CPU, 8)
    assert batch.dtype == torch.uint8
    assert levels(batch) == list(range(1, count + 1))


def test_the_pixels_of_a_single_slice_are_not_copied_for_a_cpu() -> None:
    ct_slice = numbered(1)[0]
    batch = to_device([ct_slice], CPU, 8)
    ct_slice[:] = 7
    assert levels(batch) == [7]
