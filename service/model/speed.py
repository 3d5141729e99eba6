"""Speed of this processor in each precision, measured on one convolution."""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

import torch

from service.model.card import Precision
from service.model.file import DTYPES, without_deprecation_warnings
from service.model.hardware import int8_packed_by_onednn, one_thread

_CHANNELS: Final = 256
_HEIGHT: Final = 24
_WIDTH: Final = 32
"""A middle layer of VGG: 0.45 billion products, 2 to 3 % of a pass."""

_ROUNDS: Final = 5
_MOST_SECONDS: Final = 0.4


@lru_cache
def measure_precisions(precisions: tuple[Precision, ...]) -> dict[Precision, float]:
    """Measure the milliseconds of one convolution in each precision on a CPU: processor time on one thread, the lowest.

    A pass of the network takes most of its time in convolutions like this one. Measuring passes would need both
    model files in memory and seconds on a slow processor. Processor time of one thread does not depend on other load.
    Precisions take turns, for at most half a second and at least once. Measured once in a process.

    Args:
        precisions: of fp32, bf16 and int8.
    """
    started = time.perf_counter()
    milliseconds: dict[Precision, float] = {}
    with torch.inference_mode(), one_thread():
        layers = {precision: _layer(precision) for precision in precisions}
        for layer in layers.values():
            layer()  # the first run compiles
        for _ in range(_ROUNDS):
            for precision, layer in layers.items():
                before = time.thread_time()
                layer()
                took = 1000 * (time.thread_time() - before)
                milliseconds[precision] = min(took, milliseconds.get(precision, took))
            if time.perf_counter() - started > _MOST_SECONDS:
                break
    return milliseconds


def _layer(precision: Precision) -> Callable[[], torch.Tensor]:
    """Build a 3 x 3 convolution with ReLU on zeros; the time does not depend on the values."""
    picture = torch.zeros(1, _CHANNELS, _HEIGHT, _WIDTH).contiguous(memory_format=torch.channels_last)
    weight = torch.zeros(_CHANNELS, _CHANNELS, 3, 3).contiguous(memory_format=torch.channels_last)
    if precision != "int8":
        dtype = DTYPES[precision]
        return partial(_convolve, picture.to(dtype), weight.to(dtype))
    with without_deprecation_warnings():
        quantised = torch.quantize_per_tensor(picture, 1.0, 0, torch.quint8)
        weights = torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8)
    with int8_packed_by_onednn():
        packed = torch.ops.quantized.conv2d_prepack(weights, None, [1, 1], [1, 1], [1, 1], 1)
    return partial(torch.ops.quantized.conv2d_relu, quantised, packed, 1.0, 0)


def _convolve(picture: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.conv2d(picture, weight, padding=1).relu_()
