"""CUDA graphs of a network: its passes, recorded once for each batch size."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from service.model.file import Network
from service.model.hardware import is_out_of_memory, reason_of

_WARM_RUNS: Final = 5
"""Before a recording: TorchScript profiles the first run of a size and compiles in the second; then to be safe."""

_RECORDING: Final = threading.Lock()
"""Held while a pass is recorded: a process can't record two, and torch can't return memory meanwhile."""

_HOST_OPERATORS: Final = frozenset(
    {
        "aten::_local_scalar_dense",
        "aten::as_tensor",
        "aten::bincount",
        "aten::cpu",
        "aten::equal",
        "aten::is_nonzero",
        "aten::item",
        "aten::masked_select",
        "aten::nonzero",
        "aten::repeat_interleave",
        "aten::tensor",
        "aten::unique_dim",
        "aten::_unique2",
        "prim::tolist",
    }
)
"""Operators that copy from the host or wait for the device: no graph can be recorded across one."""

_NUMBERS_OF_TENSORS: Final = frozenset(
    {"aten::Bool", "aten::Float", "aten::FloatImplicit", "aten::Int", "aten::IntImplicit", "aten::ScalarImplicit"}
)
"""Likewise, if their argument is a tensor."""

_log = logging.getLogger("covidct")


@dataclass(frozen=True, slots=True)
class _Recording:
    """A recorded pass: it reads `batch` and writes `outputs`, both at fixed addresses."""

    batch: torch.Tensor
    graph: torch.cuda.CUDAGraph
    outputs: dict[str, torch.Tensor]


class CudaGraphs:
    """A network on a GPU; a pass of a recorded batch size is one launch instead of hundreds.

    The recordings share their memory, which is safe in any order, because inputs and outputs of each stay allocated,
    but never at the same time. So call it from one thread, and read the outputs before the next call.

    Args:
        network: ready to be called on the device.
        device: a GPU.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._recordings: dict[int, _Recording] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes that were recorded, ascending; empty if the network could not be recorded."""
        return tuple(sorted(self._recordings))

    def record(self, sizes: Sequence[int], side: int) -> None:
        """Record a pass for each batch size; without recordings the network runs as if there were no graphs.

        A size for which there is no memory is left out. If anything else fails, there are no recordings, and a line in
        the log says why; a lost device shows itself again at the next run.

        Args:
            sizes: numbers of slices.
            side: of a slice, in pixels.
        """
        self.clear()
        unfit = host_operators(self._network)
        if unfit:
            _log.warning("no CUDA graphs: the network has %s; it runs without them", ", ".join(unfit))
            return
        try:
            self._record_all(sizes, side)
        except RuntimeError as error:
            self.clear()
            _log.warning("no CUDA graphs: %s; the network runs without them", reason_of(error))

    def _record_all(self, sizes: Sequence[int], side: int) -> None:
        pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        for size in sorted(sizes, reverse=True):  # the smaller ones fit into the memory of the largest
            try:
                self._recordings[size] = self._record(size, side, pool, stream)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                _log.warning("no CUDA graph for batches of %d: out of memory", size)

    @torch.inference_mode()
    def _record(self, size: int, side: int, pool: Any, stream: torch.cuda.Stream) -> _Recording:
        batch = torch.zeros(size, 1, side, side, dtype=torch.uint8, device=self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_RUNS):
                self._network(batch)
        graph = torch.cuda.CUDAGraph()
        # thread_local: while a model is reloaded, other threads go on using the device
        with _RECORDING, torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            outputs = self._network(batch)
        return _Recording(batch, graph, outputs)

    @torch.inference_mode()
    def __call__(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the network like `service.model.file.Network`, on the current stream.

        Returns:
            Tensors on the device, valid until the next call.
        """
        recording = self._recordings.get(len(batch))
        if recording is None:
            return self._network(batch)
        recording.batch.copy_(batch)
        recording.graph.replay()
        return recording.outputs

    def clear(self) -> None:
        """Drop all recordings and their memory."""
        self._recordings.clear()


def return_memory() -> None:
    """Give the device the memory that torch keeps but does not use, even while a model is reloaded."""
    with _RECORDING:
        torch.cuda.empty_cache()


def host_operators(network: Network) -> list[str]:
    """List the operators of a TorchScript network that no CUDA graph can hold, sorted; none for another callable.

    It can't see all of them: the index of `aten::index` may be a mask, for which the host waits. Those fail when they
    are recorded.
    """
    graph = getattr(network, "inlined_graph", None)
    if graph is None:
        return []
    nodes = [node for name in _HOST_OPERATORS | _NUMBERS_OF_TENSORS for node in graph.findAllNodes(name)]
    return sorted({node.kind() for node in nodes if node.kind() in _HOST_OPERATORS or _has_tensor(node)})


def _has_tensor(node: Any) -> bool:
    return any(value.type().kind() == "TensorType" for value in node.inputs())
