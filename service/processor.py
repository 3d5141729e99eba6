"""What the processor or GPU of this machine can compute in, and how much of it this process may use."""

import math
import os
from pathlib import Path
from typing import Final

import torch

_NATIVE_BF16: Final = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
"""Instruction sets that multiply bf16 in hardware; elsewhere PyTorch emulates it, many times slower than fp32."""

_NATIVE_INT8: Final = ("avx512_vnni", "avx_vnni")


def choose_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; `auto` is a GPU where there is one.

    Raises:
        ValueError: `cuda` was asked for and there is none; one line.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is available; use auto or cpu, or check the driver and torch's CUDA build")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def has_native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(_capabilities().get(name, False) for name in _NATIVE_BF16)


def has_native_int8() -> bool:
    """Whether the processor multiplies and adds int8 in one instruction, as x86 does with VNNI."""
    return any(_capabilities().get(name, False) for name in _NATIVE_INT8)


def usable_processors() -> int:
    """Processors this process may use: its affinity, and the quota of its control group (version 2) if it has one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or `max` for no quota
        return count


def _capabilities() -> dict[str, object]:
    """The processor's instruction sets; empty where this version of torch can't tell."""
    read = getattr(torch.cpu, "get_capabilities", None)
    return dict(read()) if read is not None else {}
