"""Runs the network on its device: batches of slices to predictions."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import torch

from service.errors import ErrorCode, OverloadedError
from service.imaging.decode import Slice
from service.model.assess import find_refusal
from service.model.choice import Choice
from service.model.file import LoadedModel, Network
from service.model.hardware import is_loss_of_device, is_out_of_memory, use_threads
from service.model.prediction import NetworkPrediction, read_outputs

R = TypeVar("R")

_CPU_BATCH: Final = 1
_GPU_BATCH: Final = 64
_MAX_CONCURRENT_BATCHES: Final = 4


class Predictor:
    """One loaded model on one device.

    On a CPU a slice in a batch of 8 takes as long as alone (measured: 0.97 to 1.07 times), and a convolution on two
    threads takes more than half of its time on one. So waiting slices run concurrently there, each on its share of
    the threads, and a single slice gets all threads.

    A batch that runs alone always runs in the same thread, because OpenMP keeps a team of threads for every thread that
    has computed on several. With more OpenMP threads than cores, idle threads sleep; waking them per layer made int8
    1.2 times slower.

    On a GPU one batch runs at a time.

    Args:
        model: card and network of the file.
        choice: the file, and where and in what it computes.
        threads: threads of the network on a CPU; None is the number set in torch.
        max_batch_size: None is the default of the device.

    Attributes:
        card: the model's card, with the thresholds of the manifest's local calibration.
        sha256: hash of its file.
        device, precision: of the choice.
        max_batch_size: maximum number of slices in a batch.
        max_concurrent_batches: maximum number of batches at a time.
        has_lungs: whether the network finds lungs; known after the first batch, which is the self-check.
        has_factors: whether it predicts lesions and COVID-19 separately; known after the first batch, too.
        device_lost: whether the device has failed permanently; only a new process may find it again.
    """

    def __init__(
        self, model: LoadedModel, choice: Choice, threads: int | None = None, max_batch_size: int | None = None
    ) -> None:
        self.card = model.card.calibrated(choice.manifest.local)
        self.sha256 = model.sha256
        self.choice = choice
        self.device = choice.device
        self.precision = choice.precision
        on_cpu = self.device.type == "cpu"
        self._threads = threads or torch.get_num_threads()
        self.max_concurrent_batches = min(_MAX_CONCURRENT_BATCHES, self._threads) if on_cpu else 1
        self.max_batch_size = max_batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
        self.has_lungs = False
        self.has_factors = False
        self.device_lost = False
        self._network: Network = model.network
        self._lung_finder = model.lung_finder
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
            self._others.shutdown(wait=False)  # OpenMP ends the team when its thread ends
            self._others, self._others_have_teams = self._other_threads(), False
        self._in_first = future = self._first.submit(function)
        return future

    async def predict(
        self, slices: Sequence[Slice], concurrent_batches: int = 1, look_first: Sequence[bool] = ()
    ) -> list[NetworkPrediction | Exception]:
        """Predict for uint8 (1, S, S) slices, in order.

        A slice gets an `InferenceError` if an output is not finite, and an `OverloadedError` if the device has no
        memory for even one slice.

        Args:
            slices: a batch.
            concurrent_batches: number of batches that share the threads.
            look_first: for each slice, whether the lung finder looks at it first; if a check fails then, the slice gets
                the refusal, and the large network does not read it. Empty: no slice.
        """
        batch = partial(self.predict_now, slices, concurrent_batches, look_first)
        return await asyncio.wrap_future(self.submit(batch, concurrent_batches))

    def predict_now(
        self, slices: Sequence[Slice], concurrent_batches: int = 1, look_first: Sequence[bool] = ()
    ) -> list[NetworkPrediction | Exception]:
        """Predict like `predict`, in the calling thread."""
        if self.device.type == "cpu":
            use_threads(self._threads_for(concurrent_batches))
        try:
            return self._predict(slices, look_first)
        except RuntimeError as error:  # the base class of torch's errors
            if not is_out_of_memory(error):
                self.device_lost = is_loss_of_device(error)
                raise
        torch.cuda.empty_cache()
        if len(slices) == 1:
            return [
                OverloadedError(
                    "The device has no memory left; try again.", code=ErrorCode.OUT_OF_MEMORY, retry_after_seconds=5
                )
            ]
        half = len(slices) // 2
        halves = (slices[:half], look_first[:half]), (slices[half:], look_first[half:])
        return [result for part, look in halves for result in self.predict_now(part, concurrent_batches, look)]

    def _predict(self, slices: Sequence[Slice], look_first: Sequence[bool]) -> list[NetworkPrediction | Exception]:
        looked = [index for index, look in enumerate(look_first) if look]
        refused = self._refused([slices[index] for index in looked]) if looked and self._lung_finder else []
        results: dict[int, NetworkPrediction | Exception] = {
            index: error for index, error in zip(looked, refused, strict=False) if error is not None
        }
        rest = [index for index in range(len(slices)) if index not in results]
        results.update(zip(rest, self._read([slices[index] for index in rest]) if rest else (), strict=True))
        return [results[index] for index in range(len(slices))]

    def _refused(self, slices: Sequence[Slice]) -> list[Exception | None]:
        """Return the refusal of each slice that fails a check by the lung finder."""
        assert self._lung_finder is not None  # noqa: S101 - asked before
        with torch.inference_mode():
            outputs = self._lung_finder(to_device(slices, self.device, self.max_batch_size))
        checks = self.card.checks
        scores = [{name: float(outputs[name][index]) for name in checks} for index in range(len(slices))]
        return [find_refusal(score, checks) for score in scores]

    def _read(self, slices: Sequence[Slice]) -> list[NetworkPrediction | Exception]:
        with torch.inference_mode():
            outputs = self._network(to_device(slices, self.device, self.max_batch_size))
        self.has_lungs = "lungs" in outputs
        self.has_factors = "lesion_probability" in outputs
        return read_outputs(outputs, len(slices), self.card.checks)

    def close(self) -> None:
        """Wait for the batches that are running, then end the threads."""
        self._first.shutdown()
        self._others.shutdown()

    def _other_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max(1, self.max_concurrent_batches - 1), thread_name_prefix="predictor")

    def _threads_for(self, concurrent_batches: int) -> int:
        """Number of torch's threads for one of some concurrent batches; 1 on a GPU."""
        return max(1, self._threads // concurrent_batches) if self.device.type == "cpu" else 1


def sizes_of_batches(max_size: int) -> tuple[int, ...]:
    """List the batch sizes 1, 2, 4, ... and `max_size`: a batch is at most half empty."""
    powers = (2**power for power in range(max_size.bit_length()))
    return (*(size for size in powers if size < max_size), max_size)


def to_device(slices: Sequence[Slice], device: torch.device, max_size: int) -> torch.Tensor:
    """Copy slices, uint8 (1, S, S), to one batch on the device, uint8 (N, 1, S, S).

    On a CPU, N is the number of slices. On a GPU, zeros pad the batch to one of `sizes_of_batches`, so that each size
    was compiled and got its memory at the warm-up. Pinned memory makes the copy faster.
    """
    if device.type == "cpu":
        # np.stack would copy the pixels of a single slice
        return torch.from_numpy(slices[0][np.newaxis] if len(slices) == 1 else np.stack(slices))
    size = next(size for size in sizes_of_batches(max_size) if size >= len(slices))
    batch = torch.zeros(size, *slices[0].shape, dtype=torch.uint8, pin_memory=True)
    np.stack(slices, out=batch.numpy()[: len(slices)])
    return batch.to(device, non_blocking=True)
