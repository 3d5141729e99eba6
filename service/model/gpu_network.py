"""A network on a GPU, called from any thread."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from service.model.cuda_graphs import CudaGraphs
from service.model.file import Network


class GpuNetwork:
    """Runs a network on a GPU, one batch at a time, and brings its outputs to the host.

    All passes run in one thread, in the order of their calls: cuDNN keeps its handles and plans for each thread, and
    CUDA graphs share memory. Meanwhile the threads that call may prepare other batches.

    Args:
        network: ready to be called on the device.
        device: a GPU.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        self._device = device
        self._graphs = CudaGraphs(network, device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu")

    @property
    def recorded_sizes(self) -> tuple[int, ...]:
        """Batch sizes whose passes are recorded, ascending."""
        return self._graphs.sizes

    def record(self, sizes: Sequence[int], side: int) -> None:
        """Record a pass for each batch size, see `CudaGraphs.record`."""
        self._thread.submit(self._graphs.record, sizes, side).result()

    def __call__(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the network like `service.model.file.Network`, and wait for it.

        Args:
            batch: on the device; it must not change during the call.

        Returns:
            Tensors in the memory of the host.
        """
        return self._thread.submit(self._run, batch).result()

    def _run(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.inference_mode():  # holds for a thread, and this is another one than the caller's
            outputs = self._graphs(batch)
            # torch puts such copies into pinned memory, so that all are on their way before the wait
            found = {name: each.to("cpu", non_blocking=True, copy=True) for name, each in outputs.items()}
        torch.cuda.current_stream(self._device).synchronize()
        return found

    def close(self) -> None:
        """Wait for the batch that is running, end the thread, and drop the recordings."""
        self._thread.shutdown()
        self._graphs.clear()
