"""The network, ready to answer: device, precision, self-check, and one thread that owns it."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from service.artifact import Artifact, Manifest, ManifestFile, Precision, load_model, read_manifest, synthetic_slice
from service.errors import InferenceError, ModelFileError, OverloadedError
from service.image import Slice
from service.processor import (
    choose_device,
    has_native_bf16,
    has_native_int8,
    keep_freed_memory,
    usable_processors,
    use_threads,
)
from service.settings import Settings
from service.staging import Staging, sizes_of_batches

R = TypeVar("R")

_CPU_BATCH: Final = 1
_GPU_BATCH: Final = 64
_MOST_BATCHES_AT_ONCE: Final = 4


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
        batches_at_once: batches that it takes side by side.
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
        self.batches_at_once = min(_MOST_BATCHES_AT_ONCE, self._threads) if on_cpu else 1
        self.max_batch_size = max_batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
        self.device_lost = False
        self._staging = Staging(device, self.max_batch_size, artifact.card.input_size)
        self._network = artifact.network
        self._pool = ThreadPoolExecutor(self.batches_at_once, thread_name_prefix="predictor")

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

    async def predict(self, slices: Sequence[Slice], among: int = 1) -> list[Prediction | Exception]:
        """Answers to uint8 (1, S, S) slices, in order.

        In the place of an answer: an `InferenceError` where it is not finite, an `OverloadedError` where the device
        has no memory for this slice even alone.

        Args:
            slices: a batch.
            among: how many batches share the threads meanwhile.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.predict_now, slices, among)

    def predict_now(self, slices: Sequence[Slice], among: int = 1) -> list[Prediction | Exception]:
        """The same, in the calling thread."""
        if self.device.type == "cpu":
            use_threads(max(1, self._threads // among))
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
                    "The device has no memory left; try again.", code="out_of_memory", retry_after_seconds=5
                )
            ]
        half = len(slices) // 2
        return [*self.predict_now(slices[:half], among), *self.predict_now(slices[half:], among)]

    def _answer(self, slices: Sequence[Slice]) -> list[Prediction | Exception]:
        batch = self._staging.gather(slices)
        with torch.inference_mode():
            outputs = [output[: len(slices)].float().cpu() for output in self._network(batch)]
        probabilities, scores, heatmaps = outputs
        rows = zip(probabilities.tolist(), scores.tolist(), heatmaps.numpy(), strict=True)
        return [_checked(Prediction(*row)) for row in rows]

    def close(self) -> None:
        """Wait for the batches that are running, then end the threads."""
        self._pool.shutdown()


def load_predictor(settings: Settings) -> Predictor:
    """Load the model of the settings' folder, warm it up and check it.

    Raises:
        ModelFileError: no model, not the released file, or it does not answer as its card says; one line.
    """
    try:
        device = choose_device(settings.device)
    except ValueError as error:
        raise ModelFileError(f"COVIDCT_DEVICE={settings.device}: {error}") from error
    threads = settings.threads or usable_processors()
    if device.type == "cpu":
        torch.set_num_threads(threads)
        keep_freed_memory()
    manifest = read_manifest(settings.models_dir)
    precision = choose_precision(settings.precision, device, manifest)
    file = choose_file(manifest, precision)
    path = settings.models_dir / file.name
    artifact = load_model(path, device, precision, file.sha256)
    shares = manifest.probability_shares
    predictor = Predictor(artifact, device, precision, settings.batch_max_size, threads, shares)
    try:
        _warm_up(predictor, path)
    except BaseException:
        predictor.close()
        raise
    return predictor


def choose_precision(wanted: Literal["auto"] | Precision, device: torch.device, manifest: Manifest) -> Precision:
    """What to compute in, of what the device multiplies fastest and the manifest has a file for.

    `auto` is fp16 on a GPU; on a CPU it is int8, then bf16, where the processor multiplies it in hardware, else fp32.

    Raises:
        ModelFileError: no file computes in what was wanted on this device; one line.
    """
    stored = {file.precision for file in manifest.files}
    if wanted == "int8" and device.type != "cpu":
        raise ModelFileError(f"COVIDCT_PRECISION=int8: int8 files compute on a CPU, not on {device.type}; use auto")
    if wanted == "auto":
        if device.type == "cuda":
            wanted = "fp16"
        elif "int8" in stored and (has_native_int8() or stored == {"int8"}):
            wanted = "int8"
        else:
            wanted = "bf16" if has_native_bf16(device) else "fp32"
    if ("int8" if wanted == "int8" else "fp16") not in stored:
        raise ModelFileError(
            f"COVIDCT_PRECISION={wanted}: no file of the manifest computes in it; stored is {' and '.join(stored)}"
        )
    return wanted


def choose_file(manifest: Manifest, precision: Precision) -> ManifestFile:
    """The file that computes in `precision`: that with int8 weights, or that with fp16 weights for all others."""
    wanted = "int8" if precision == "int8" else "fp16"
    return next(file for file in manifest.files if file.precision == wanted)


def _warm_up(predictor: Predictor, path: Path) -> None:
    """Run the self-check for every size of batch, at least twice: TorchScript compiles in the first two runs.

    Without this the first requests would pay for it. It is done in the threads that will serve, because cuDNN's handles
    and OpenMP's teams belong to threads.
    """
    sizes = (1, *sizes_of_batches(predictor.max_batch_size))
    among = min(2, predictor.batches_at_once)
    checks = [predictor.submit(partial(_check, predictor, path, size, among)) for size in sizes]
    wait(checks)
    for check in checks:
        check.result()


def _check(predictor: Predictor, path: Path, size: int, among: int) -> None:
    check = predictor.card.self_check
    example = synthetic_slice(check.seed, predictor.card.input_size)
    tolerance = check.tolerance.get(predictor.precision)
    if tolerance is None:
        raise ModelFileError(f"{path}: its card has no self-check tolerance for {predictor.precision}")
    try:
        answers = predictor.predict_now([example] * size, among)
    except RuntimeError as error:  # torch's own; the reason is below the trace of its interpreter
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1][:200]
        raise ModelFileError(f"{path}: self-check can't run in {predictor.precision}: {reason}") from error
    for answer in answers:
        if isinstance(answer, Exception):
            raise ModelFileError(f"{path}: self-check failed: {answer}") from answer
        if abs(answer.probability - check.probability) > tolerance:
            raise ModelFileError(
                f"{path}: self-check failed: probability {answer.probability:.6f} in {predictor.precision} on "
                f"{predictor.device}, the card says {check.probability:.6f} within {tolerance}"
            )


def _checked(prediction: Prediction) -> Prediction | Exception:
    finite = math.isfinite(prediction.probability) and math.isfinite(prediction.ood_score)
    if finite and 0 <= prediction.probability <= 1 and np.isfinite(prediction.heatmap).all():
        return prediction
    return InferenceError("The network's answer to this image is not a finite number.", code="not_finite")


def _is_out_of_memory(error: RuntimeError) -> bool:
    """TorchScript's interpreter hands on the text of the error, not always its kind."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def _is_loss_of_device(error: RuntimeError) -> bool:
    """After such an error every further call in this process fails."""
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
