"""Static int8 quantisation of the convolutions, for processors that multiply int8 in hardware.

Jacob et al. 2018, arXiv 1712.05877; weights per output channel, activations per layer with histogram observers. This
is PyTorch's eager-mode quantisation: its successor (torchao, PT2E) writes programs that TorchScript can't hold.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn
from torch.ao import quantization

from training.data.batches import in_batches, plain_inputs
from training.data.covid_ct import Split
from training.network.deployable import Deployable
from training.network.vgg import Features
from training.run.progress import progress

_CALIBRATION_STRIDE: Final = 4
"""Every fourth batch of training slices sets the scales: about a hundred slices of both classes."""


def calibration_images(train: Split, input_size: int) -> Sequence[torch.Tensor]:
    """Return the batches of training slices that set the scales: uint8 (N, 1, S, S) each."""
    return in_batches(plain_inputs(train, input_size))[::_CALIBRATION_STRIDE]


def quantise(deployable: Deployable, batches: Sequence[torch.Tensor]) -> Deployable:
    """Copy a network with convolutions in int8; normalisation, pooling and head stay in fp32.

    Args:
        deployable: on the CPU, in fp32, batch norms folded; it does not change.
        batches: slices that set the scales, from `calibration_images`.
    """
    quantised = copy.deepcopy(deployable)
    layers = nn.Sequential(quantization.QuantStub(), *quantised.features).eval()
    pairs = [[str(i), str(i + 1)] for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    with _ignore_deprecation_warnings():
        quantization.fuse_modules(layers, pairs, inplace=True)  # type: ignore[no-untyped-call]
        layers.qconfig = _settings()  # type: ignore[assignment]
        quantization.prepare(layers, inplace=True)  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            for batch in progress(batches, "calibrating int8", "batch"):
                layers(quantised.normalise(batch))
        converted = quantization.convert(layers)  # type: ignore[no-untyped-call]
    # fusing keeps every layer's place, and the stub is an additional layer in front
    quantised.features = Features(converted, [place + 1 for place in quantised.features.places])
    return quantised


def _settings() -> quantization.QConfig:
    """Use 7 of 8 bits for activations: processors without VNNI add two products in 16 bits, which 8 bits overflow."""
    return quantization.QConfig(  # type: ignore[no-untyped-call]
        activation=quantization.HistogramObserver.with_args(quant_min=0, quant_max=127),
        weight=quantization.PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric),
    )


@contextmanager
def _ignore_deprecation_warnings() -> Iterator[None]:
    """Ignore warnings that PyTorch will remove this API and its tensors; docs/decisions.md has the plan."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*(torch\.ao\.quantization|quantized tensor creation).*")
        yield
