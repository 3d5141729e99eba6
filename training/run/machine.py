"""The device, number format and processes that a run computes with."""

import contextlib
import resource
import sys
from dataclasses import dataclass, replace

import cv2
import torch

from service.model.hardware import choose_device, has_native_bf16
from service.processors import usable_processors
from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Machine:
    """Device, autocast format and data loading processes of a run.

    Attributes:
        device: one GPU or the CPU.
        autocast_dtype: format of the convolutions under autocast; None computes everything in fp32.
        workers: processes that load slices; 0: the main process does it.
    """

    device: torch.device
    autocast_dtype: torch.dtype | None
    workers: int

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context for forward passes of training."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler, which fp16 needs for its narrow range (Micikevicius et al., arXiv 1710.03740)."""
        return torch.amp.GradScaler(self.device.type, enabled=self.autocast_dtype is torch.float16)

    def without_autocast(self) -> "Machine":
        """Return the same machine in fp32, for figures and thresholds."""
        return replace(self, autocast_dtype=None)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{name}, {str(self.autocast_dtype or torch.float32).removeprefix('torch.')}, {self.workers} workers"


def find_machine(device: str, precision: str, workers: int | None) -> Machine:
    """Choose device and autocast format.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16; auto is bf16 where the processor computes it natively, then fp16 on a GPU.
        workers: data loading processes; None: for a GPU one for each processor, at most 8; for a CPU none, because they
            would compete with training for processors.
    """
    chosen = _choose(device)
    _compute_exactly()
    if precision == "auto":
        fallback = "fp16" if chosen.type == "cuda" else "fp32"
        precision = "bf16" if has_native_bf16(chosen) else fallback
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if workers is None:
        workers = min(8, usable_processors()) if chosen.type == "cuda" else 0
    return Machine(chosen, dtype, workers)


def use_threads(count: int | None) -> None:
    """Compute with so many threads of this process; None leaves one for each processor."""
    if count is not None:
        torch.set_num_threads(count)
        cv2.setNumThreads(count)


def _choose(device: str) -> torch.device:
    """Choose a device, also by number and Apple's, which the service does not offer."""
    kind, _, number = device.partition(":")
    try:
        chosen = choose_device(kind)
    except ValueError as error:
        raise TrainingError(f"--device {device}: {error}") from error
    if kind == "mps" and not torch.backends.mps.is_available():
        raise TrainingError("--device mps: torch finds no Apple GPU; use auto or cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise TrainingError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, from cuda:0")
    return torch.device(device) if number else chosen


def _compute_exactly() -> None:
    """Turn off TF32, which rounds fp32 figures to 10 bits on a GPU, and algorithms that vary between runs."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def peak_memory_bytes() -> int:
    """Return the largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
