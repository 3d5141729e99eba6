"""The network on its device: batches of slices in, predictions out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import torch

from service.errors import ErrorCode, OverloadedError
from service.imaging.decode import Slice
from service.model.card import FileAgreement, Manifest, Precision
from service.model.cuda_graphs import return_memory
from service.model.file import Artifact, Network
from service.model.gpu_network import GpuNetwork
from service.model.hardware import is_loss_of_device, is_out_of_memory, use_threads
from service.model.prediction import Prediction, read_outputs
from service.model.staging import Staging, sizes_of_batches

R = TypeVar("R")

_CPU_BATCH: Final = 1
_GPU_BATCH: Final = 64
_MAX_CONCURRENT_BATCHES: Final = 4
_BATCHES_ON_GPU: Final = 2
"""One computes, and the next is on its way."""


class Predictor:
    """One loaded model on one device.

    On a CPU a slice in a batch of 8 takes as long as alone (measured: 0.97 to 1.07 times), and a convolution on two
    threads takes more than half of its time on one. Therefore waiting slices run concurrently there, each on its share
    of the threads, and a single slice gets all threads.

    A batch that runs alone always runs in the same thread. OpenMP keeps a team of threads for every thread that has
    computed on several. If all teams together have more threads than the machine has processors, they no longer wait
    for work actively, and waking them for every layer made a pass in int8 1.2 times as long.

    On a GPU batches take turns: while one computes, the next is copied there, and answers of the last one are read.

    Args:
        artifact: the model.
        device: see below.
        precision: see below.
        max_batch_size: see below; None is the default of the device.
        threads: threads of the network on a CPU; None is the number set in torch.
        manifest: of the models folder; None if unknown.
        agreement: see below.
        milliseconds: see below.

    Attributes:
        card: the model's card.
        sha256: hash of its file.
        device, precision: device and compute precision.
        max_batch_size: maximum number of slices in a batch.
        max_concurrent_batches: maximum number of batches at a time.
        batches_take_turns: whether such batches compute one after the other, on a GPU, instead of side by side.
        probability_shares, lung_involvement_shares: as in the manifest.
        agreement: of the file, as in the manifest; None if unknown.
        milliseconds: of one convolution in each precision that was compared; empty if there was no choice.
        has_lungs: whether the network finds lungs; known after the first batch, which is the self-check.
        device_lost: whether the device has failed for good; a new process may find it again.
    """

    def __init__(
        self,
        artifact: Artifact,
        device: torch.device,
        precision: Precision,
        max_batch_size: int | None = None,
        threads: int | None = None,
        manifest: Manifest | None = None,
        agreement: FileAgreement | None = None,
        milliseconds: Mapping[Precision, float] | None = None,
    ) -> None:
        self.agreement = agreement
        self.milliseconds = dict(milliseconds or {})
        self.probability_shares = () if manifest is None else manifest.probability_shares
        self.lung_involvement_shares = {} if manifest is None else manifest.lung_involvement_shares
        self.card = artifact.card
        self.sha256 = artifact.sha256
        self.device = device
        self.precision = precision
        on_cpu = device.type == "cpu"
        self._threads = threads or torch.get_num_threads()
        self.max_concurrent_batches = min(_MAX_CONCURRENT_BATCHES, self._threads) if on_cpu else _BATCHES_ON_GPU
        self.batches_take_turns = not on_cpu
        self.max_batch_size = max_batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
        self.has_lungs = False
        self.device_lost = False
        slots = 0 if on_cpu else self.max_concurrent_batches
        self._staging = Staging(device, self.max_batch_size, artifact.card.input_size, slots)
        self._gpu = None if on_cpu else GpuNetwork(artifact.network, device)
        self._network: Network = self._gpu or artifact.network
        self._first = ThreadPoolExecutor(1, thread_name_prefix="predictor")
        self._others = self._other_threads()
        self._others_have_teams = False
        self._in_first: Future[Any] | None = None

    @property
    def description(self) -> dict[str, str]:
        """Description of the loaded model, for a log line."""
        return {
            "name": self.card.name,
            "version": self.card.version,
            "sha256": self.sha256,
            "device": str(self.device),
            "precision": self.precision,
        }

    def record_passes(self) -> None:
        """On a GPU, record the network's passes as CUDA graphs; call it before the first batch."""
        if self._gpu is not None:
            self._gpu.record(sizes_of_batches(self.max_batch_size), self.card.input_size)

    def submit(self, function: Callable[[], R], concurrent_batches: int = 1) -> "Future[R]":
        """Run `function` in a thread of the predictor.

        Args:
            function: computes one batch.
            concurrent_batches: number of batches that share the threads; with 1, no other one runs on a CPU.
        """
        if self._in_first is not None and not self._in_first.done():
            self._others_have_teams = self._others_have_teams or self._threads_for(concurrent_batches) > 1
            return self._others.submit(function)
        if self._others_have_teams and concurrent_batches == 1:
            self._others.shutdown(wait=False)  # OpenMP ends the team of a thread that ends
            self._others, self._others_have_teams = self._other_threads(), False
        self._in_first = future = self._first.submit(function)
        return future

    async def predict(self, slices: Sequence[Slice], concurrent_batches: int = 1) -> list[Prediction | Exception]:
        """Predict for uint8 (1, S, S) slices, in order.

        A slice gets an `InferenceError` if its answer is not finite, and an `OverloadedError` if the device has no
        memory even for this slice alone.

        Args:
            slices: a batch.
            concurrent_batches: number of batches that share the threads.
        """
        batch = partial(self.predict_now, slices, concurrent_batches)
        return await asyncio.wrap_future(self.submit(batch, concurrent_batches))

    def predict_now(self, slices: Sequence[Slice], concurrent_batches: int = 1) -> list[Prediction | Exception]:
        """Predict like `predict`, in the calling thread."""
        if self.device.type == "cpu":
            use_threads(self._threads_for(concurrent_batches))
        try:
            return self._answer(slices)
        except RuntimeError as error:  # the base class of torch's errors
            if not is_out_of_memory(error):
                self.device_lost = is_loss_of_device(error)
                raise
        return_memory()
        if len(slices) == 1:
            return [
                OverloadedError(
                    "The device has no memory left; try again.", code=ErrorCode.OUT_OF_MEMORY, retry_after_seconds=5
                )
            ]
        half = len(slices) // 2
        halves = slices[:half], slices[half:]
        return [answer for each in halves for answer in self.predict_now(each, concurrent_batches)]

    def _answer(self, slices: Sequence[Slice]) -> list[Prediction | Exception]:
        with self._staging.gather(slices) as batch, torch.inference_mode():
            outputs = self._network(batch)
        self.has_lungs = "lungs" in outputs
        return read_outputs(outputs, len(slices), self.card.checks)

    def close(self) -> None:
        """Wait for the batches that are running, then end the threads."""
        self._first.shutdown()
        self._others.shutdown()
        if self._gpu is not None:
            self._gpu.close()

    def _other_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max(1, self.max_concurrent_batches - 1), thread_name_prefix="predictor")

    def _threads_for(self, concurrent_batches: int) -> int:
        """Number of torch's threads for one of some concurrent batches; 1 on a GPU."""
        return 1 if self.batches_take_turns else max(1, self._threads // concurrent_batches)
