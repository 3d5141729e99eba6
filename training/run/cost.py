"""Cost of a run, told before it starts."""

import sys
import time
from typing import Final

import torch

from training.errors import TrainingError
from training.run.machine import Machine
from training.run.progress import close_bars, say

_LONG: Final = 1.0
"""Hours; a longer run must be confirmed."""

_CHANNELS, _SIDE, _BATCH = 256, 32, 4
_OPERATIONS: Final = 2 * 9 * _CHANNELS**2 * _SIDE**2 * _BATCH
"""Multiplications and additions of the measured convolution."""


def _operations_per_second(machine: Machine) -> float:
    """Measure the speed of a convolution like those of VGG; takes well below a second."""
    layer = torch.nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1).to(machine.device)
    maps = torch.rand(_BATCH, _CHANNELS, _SIDE, _SIDE, device=machine.device)
    best = float("inf")
    with torch.inference_mode(), machine.autocast():
        for _ in range(4):
            started = time.perf_counter()
            layer(maps).sum().item()  # waits for a GPU
            best = min(best, time.perf_counter() - started)
    return _OPERATIONS / best


def hours_of(operations: float, machine: Machine) -> float:
    """Estimate the hours of so many multiplications and additions, by the speed of a convolution."""
    return operations / _operations_per_second(machine) / 3600


def confirm_cost(hours: float, note: str, *, sure: bool) -> None:
    """Tell what a run takes; ask, or refuse without a terminal, if it is more than an hour.

    Args:
        hours: at most, estimated.
        note: disk and machine, appended to the line.
        sure: do not ask, as with --yes.

    Raises:
        TrainingError: the run was not confirmed.
    """
    text = f"{hours:.1f} hours" if hours >= _LONG else f"{60 * hours:.0f} minutes"
    say(f"cost: about {text} at most, {note}")
    if hours < _LONG or sure:
        return
    if not sys.stdin.isatty():
        raise TrainingError(f"this takes about {text}; pass --yes to start it")
    close_bars()
    print("start? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TrainingError("not started")
