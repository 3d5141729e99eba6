import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from service.model.cuda_graphs import CudaGraphs, host_operators, return_memory
from service.model.file import Network
from tests.service.model.imitated_cuda import ImitatedCuda

CPU = torch.device("cpu")
SIDE = 4


def brightness(batch: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"brightness": batch.float().mean((1, 2, 3))}


def batch_of(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, SIDE, SIDE)


def answers(graphs: CudaGraphs, *levels: int) -> list[float]:
    found: list[float] = graphs(batch_of(*levels))["brightness"].tolist()
    return found


def test_recorded_sizes_are_replayed_and_others_run(imitated_cuda: ImitatedCuda) -> None:
    graphs = CudaGraphs(imitated_cuda.network(brightness), CPU)
    graphs.record((1, 2, 4), SIDE)
    assert graphs.sizes == (1, 2, 4)
    imitated_cuda.runs.clear()
    assert answers(graphs, 10, 20) == [10, 20]
    assert answers(graphs, 7) == [7]
    assert answers(graphs, 40, 30, 20, 10) == [40, 30, 20, 10]
    assert answers(graphs, 8, 9) == [8, 9]
    assert imitated_cuda.runs == []
    assert answers(graphs, 1, 2, 3) == [1, 2, 3]
    assert imitated_cuda.runs == [3]


def test_each_size_runs_a_few_times_before_it_is_recorded_and_the_largest_is_the_first(
    imitated_cuda: ImitatedCuda,
) -> None:
    CudaGraphs(imitated_cuda.network(brightness), CPU).record((1, 2, 4), SIDE)
    assert imitated_cuda.recorded == [4, 2, 1]
    assert imitated_cuda.runs == [4] * 5 + [2] * 5 + [1] * 5


def test_a_network_that_can_not_be_recorded_runs_without_graphs_and_one_line_says_why(
    imitated_cuda: ImitatedCuda, caplog: pytest.LogCaptureFixture
) -> None:
    imitated_cuda.failures[1] = RuntimeError(
        "The following operation failed in the TorchScript interpreter.\n"
        "RuntimeError: CUDA error: operation not permitted when stream is capturing\n"
        "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
    )
    graphs = CudaGraphs(imitated_cuda.network(brightness), CPU)
    with caplog.at_level(logging.WARNING):
        graphs.record((1, 2, 4), SIDE)
    assert graphs.sizes == ()
    (line,) = caplog.messages
    assert "CUDA error: operation not permitted when stream is capturing" in line
    assert "\n" not in line
    assert answers(graphs, 10, 20) == [10, 20]


def test_a_size_without_memory_is_left_out(imitated_cuda: ImitatedCuda, caplog: pytest.LogCaptureFixture) -> None:
    imitated_cuda.failures[4] = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    graphs = CudaGraphs(imitated_cuda.network(brightness), CPU)
    with caplog.at_level(logging.WARNING):
        graphs.record((1, 2, 4), SIDE)
    assert graphs.sizes == (1, 2)
    assert caplog.messages == ["no CUDA graph for batches of 4: out of memory"]
    assert answers(graphs, 4, 3, 2, 1) == [4, 3, 2, 1]


def test_memory_is_returned_after_a_recording_not_during_it(
    imitated_cuda: ImitatedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In torch, returning memory while a graph is recorded is an error."""
    returned = threading.Event()
    monkeypatch.setattr(torch.cuda, "empty_cache", returned.set)
    pending: list[Future[None]] = []

    def network(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if imitated_cuda.is_recording:
            pending.append(pool.submit(return_memory))
            assert not returned.wait(0.05)
        return brightness(batch)

    with ThreadPoolExecutor(1) as pool:
        CudaGraphs(network, CPU).record((1,), SIDE)
        pending[0].result(5)
    assert returned.is_set()


class Harmless(torch.nn.Module):
    """Asks for sizes and numbers, but for no value of a tensor."""

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        half = int(batch.shape[2] / 2)
        return {"brightness": batch[:, :, :half].float().mean((1, 2, 3))}


class Copying(Harmless):
    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"brightness": batch.float().mean((1, 2, 3)) * torch.tensor([2.0], device=batch.device)}


class Waiting(Harmless):
    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if bool(batch.max() > 7):
            batch = batch[batch[:, 0, 0, 0].nonzero()[:, 0]]
        return {"brightness": batch.float().mean((1, 2, 3)) + batch.max().item()}


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (Harmless, []),
        (Copying, ["aten::tensor"]),
        (Waiting, ["aten::Bool", "aten::item", "aten::nonzero"]),
    ],
)
def test_operators_that_need_the_host_are_found(
    scripted: Callable[[torch.nn.Module], Network],
    module: type[torch.nn.Module],
    found: list[str],
) -> None:
    assert host_operators(scripted(module())) == found


def test_such_a_network_is_not_even_tried(
    scripted: Callable[[torch.nn.Module], Network],
    imitated_cuda: ImitatedCuda,
    caplog: pytest.LogCaptureFixture,
) -> None:
    graphs = CudaGraphs(scripted(Copying()), CPU)
    with caplog.at_level(logging.WARNING):
        graphs.record((1, 2), SIDE)
    assert graphs.sizes == ()
    assert caplog.messages == ["no CUDA graphs: the network has aten::tensor; it runs without them"]
    assert answers(graphs, 10, 20) == [20, 40]
