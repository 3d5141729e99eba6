"""Time of one slice on one processor: decoding and the network, alone in this process."""

import time
from pathlib import Path
from typing import Final

import torch

from benchmarks.bare import BareLoop
from service.model.card import Precision

_PASSES: Final = 15


def measure(models: Path, precision: Precision, image: Path, rounds: int) -> list[list[float]]:
    """Measure with one thread, so that one processor is enough.

    Returns:
        For each round the seconds of its passes.
    """
    loop = BareLoop(models, precision, image.read_bytes())
    torch.set_num_threads(1)
    loop.decoded_and_answered()
    return [[_pass(loop) for _ in range(_PASSES)] for _ in range(rounds)]


def _pass(loop: BareLoop) -> float:
    started = time.perf_counter()
    loop.decoded_and_answered()
    return time.perf_counter() - started
