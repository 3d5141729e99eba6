"""The network on its device: batches of slices in, predictions out."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from service.errors import ErrorCode, InferenceError, OverloadedError
from service.imaging.decode import Slice
from service.model.card import Precision
from service.model.file import Artifact
from service.model.hardware import use_threads
from service.model.staging import Staging

R = TypeVar("R")

_CPU_BATCH: Final = 1
_GPU_BATCH: Final = 64
_MAX_CONCURRENT_BATCHES: Final = 4


@dataclass(frozen=True, slots=True)
class Prediction:
    """The network's answer to one slice.

    Attributes:
        probability: of the positive class, 0 to 1.
        ood_score: how unlike a chest CT slice the image is; the card has the threshold.
        heatmap: float32 (h, w), evidence for the positive class by position.
    """

    probability: float
    ood_score: float
    heatmap: NDArray[np.float32]


class Predictor:
    """One loaded model on one device.

    On a CPU a slice takes as long in a batch of 8 as alone (measured: 0.97 to 1.07 times), and a convolution on two
    threads more than half of its time on one. So slices that wait run side by side there, each on its share of the
    threads, and a lone one gets all of them.

    Args:
        artifact: the model.
        device: see below.
        precision: see below.
        max_batch_size: see below; None is what suits the device.
        threads: on a CPU, what the network may use; None is what torch has.
        probability_shares: see below.

    Attributes:
        card: the model's card.
        sha256: hash of its file.
        device, precision: where and in what it computes.
        max_batch_size: slices that it takes in a batch.
        max_concurrent_batches: batches that it takes side by side.
        probability_shares: as in the manifest.
        device_lost: whether the device has failed for good; a new process may find it again.
    """

    def __init__(
        self,
        artifact: Artifact,
        device: torch.device,
        precision: Precision,
        max_batch_size: int | None = None,
        threads: int | None = None,
        probability_shares: Sequence[float] = (),
    ) -> None:
        self.probability_shares = tuple(probability_shares)
        self.card = artifact.card
        self.sha256 = artifact.sha256
        self.device = device
        self.precision = precision
        on_cpu = device.type == "cpu"
        self._threads = threads or torch.get_num_threads()
        self.max_concurrent_batches = min(_MAX_CONCURRENT_BATCHES, self._threads) if on_cpu else 1
        self.max_batch_size = max_batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
        self.device_lost = False
        self._staging = Staging(device, self.max_batch_size, artifact.card.input_size)
        self._network = artifact.network
        self._pool = ThreadPoolExecutor(self.max_concurrent_batches, thread_name_prefix="predictor")

    @property
    def description(self) -> dict[str, str]:
        """What is loaded, for a log line."""
        return {
            "name": self.card.name,
            "version": self.card.version,
            "sha256": self.sha256,
            "device": str(self.device),
            "precision": self.precision,
        }

    def submit(self, function: Callable[[], R]) -> "Future[R]":
        """Run `function` in a thread of the predictor's."""
        return self._pool.submit(function)

    async def predict(self, slices: Sequence[Slice], concurrent_batches: int = 1) -> list[Prediction | Exception]:
        """Answers to uint8 (1, S, S) slices, in order.

        In the place of an answer: an `InferenceError` where it is not finite, an `OverloadedError` where the device
        has no memory for this slice even alone.

        Args:
            slices: a batch.
            concurrent_batches: how many batches share the threads meanwhile.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self.predict_now, slices, concurrent_batches)

    def predict_now(self, slices: Sequence[Slice], concurrent_batches: int = 1) -> list[Prediction | Exception]:
        """The same, in the calling thread."""
        if self.device.type == "cpu":
            use_threads(max(1, self._threads // concurrent_batches))
        try:
            return self._answer(slices)
        except RuntimeError as error:  # torch's own kinds are all of this one
            if not _is_out_of_memory(error):
                self.device_lost = _is_loss_of_device(error)
                raise
        torch.cuda.empty_cache()
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
        batch = self._staging.gather(slices)
        with torch.inference_mode():
            outputs = [output[: len(slices)].float().cpu() for output in self._network(batch)]
        probabilities, scores, heatmaps = outputs
        rows = zip(probabilities.tolist(), scores.tolist(), heatmaps.numpy(), strict=True)
        return [_check_finite(Prediction(*row)) for row in rows]

    def close(self) -> None:
        """Wait for the batches that are running, then end the threads."""
        self._pool.shutdown()


def _check_finite(prediction: Prediction) -> Prediction | Exception:
    finite = math.isfinite(prediction.probability) and math.isfinite(prediction.ood_score)
    if finite and 0 <= prediction.probability <= 1 and np.isfinite(prediction.heatmap).all():
        return prediction
    return InferenceError("The network's answer to this image is not a finite number.", code=ErrorCode.NOT_FINITE)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """TorchScript's interpreter hands on the text of the error, not always its kind."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def _is_loss_of_device(error: RuntimeError) -> bool:
    """After such an error every further call in this process fails."""
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
