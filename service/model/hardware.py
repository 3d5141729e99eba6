"""Hardware of this machine: devices and their errors, number formats, threads, memory."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

_NATIVE_BF16: Final = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
"""Instruction sets that multiply bf16 in hardware; elsewhere PyTorch emulates it, many times slower than fp32."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""

_KEPT_BLOCK: Final = 32 * 2**20
"""Bytes; larger blocks return to the kernel, so that a huge image does not stay in memory. The maximum of glibc."""

_KEPT_MEMORY: Final = 128 * 2**20
"""Bytes at the end of the heap that stay."""


def choose_device(wanted: str) -> torch.device:
    """Choose the device for `auto`, `cpu` or `cuda`; `auto` is a GPU if there is one.

    Raises:
        ValueError: `cuda` was requested and is not available; one line.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is available; use auto or cpu, or check the driver and torch's CUDA build")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device is out of memory, also by the text: TorchScript does not always keep the class of an error."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def is_loss_of_device(error: RuntimeError) -> bool:
    """Whether the device is lost: every further call in this process fails."""
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def reason_of(error: RuntimeError) -> str:
    """Return the line of an error with the reason: TorchScript puts a trace before it, CUDA advice after it."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    return next((line for line in reversed(lines) if "error: " in line.lower()), lines[-1])[:200]


def has_native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(_capabilities().get(name, False) for name in _NATIVE_BF16)


def has_int8() -> bool:
    """Whether this build of torch has int8 kernels for the processor, fast or slow."""
    return bool(torch.backends.quantized.engine not in ("", "none"))


@contextmanager
def int8_packed_by_onednn() -> Iterator[None]:
    """Let oneDNN pack int8 weights on an x86 processor, and multiply with them from then on.

    By default torch uses oneDNN with VNNI and FBGEMM without it, because without VNNI oneDNN adds two products in 16
    bits, which 8-bit activations overflow. Model files have 7-bit activations, and oneDNN takes 0.85 of the time.
    """
    before = torch.backends.quantized.engine
    if before == "x86":
        torch.backends.quantized.engine = "onednn"
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def use_threads(count: int) -> None:
    """Set the number of threads that torch uses for the calling thread; OpenMP keeps it for each thread."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread only."""
    before = torch.get_num_threads()
    use_threads(1)
    try:
        yield
    finally:
        use_threads(before)


def keep_freed_memory() -> None:
    """Make glibc keep memory that torch frees, for the next slice. No effect without glibc.

    Call it before threads start.

    The first layers' activations are 13 MB each. By default malloc returns such blocks to the kernel after some passes,
    and getting and clearing them again took up to 14 % of a pass.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _KEPT_BLOCK), (_M_TRIM_THRESHOLD, _KEPT_MEMORY)):
            mallopt(option, value)


def return_freed_memory() -> None:
    """Return freed memory to the kernel: takes 2 ms, and the next slice takes 6 ms longer. No effect without glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _capabilities() -> dict[str, object]:
    """Return the processor's instruction sets; empty if this version of torch can't report them."""
    read = getattr(torch.cpu, "get_capabilities", None)
    return dict(read()) if read is not None else {}
