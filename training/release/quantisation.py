"""Static int8 quantisation of the convolutions, for processors that multiply int8 in hardware.

Jacob et al. 2018, arXiv 1712.05877; weights per output channel, activations per layer with histogram observers. This
is PyTorch's eager-mode quantisation: its successor (torchao, PT2E) writes programs that TorchScript can't hold.
"""

import copy
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn
from torch.ao import quantization

from training.data.batches import Batch
from training.network.deployable import Deployable
from training.network.vgg import Features
from training.run.progress import progress

CALIBRATION_STRIDE: Final = 4
"""Every fourth batch of training slices sets the scales: about a hundred slices of both classes."""


def quantise(deployable: Deployable, batches: Iterable[Batch]) -> Deployable:
    """A copy whose convolutions compute in int8; normalisation, pooling, head and density stay in fp32.

    Args:
        deployable: on the CPU, in fp32, batch norms folded; it stays as it is.
        batches: slices whose activations set the scales.
    """
    quantised = copy.deepcopy(deployable)
    layers = nn.Sequential(quantization.QuantStub(), *quantised.features).eval()
    pairs = [[str(i), str(i + 1)] for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    with _deprecation_known():
        quantization.fuse_modules(layers, pairs, inplace=True)  # type: ignore[no-untyped-call]
        layers.qconfig = _settings()  # type: ignore[assignment]
        quantization.prepare(layers, inplace=True)  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            for batch in progress(batches, "calibrating int8", "batch"):
                layers(quantised.normalise(batch.images))
        converted = quantization.convert(layers)  # type: ignore[no-untyped-call]
    # fusing left something in every layer's place, and the stub came before them all
    quantised.features = Features(converted, [place + 1 for place in quantised.features.places])
    return quantised


def _settings() -> quantization.QConfig:
    """Activations use 7 of the 8 bits: processors without VNNI add two products in 16 bits, which 8 would overflow."""
    return quantization.QConfig(  # type: ignore[no-untyped-call]
        activation=quantization.HistogramObserver.with_args(quant_min=0, quant_max=127),
        weight=quantization.PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric),
    )


@contextmanager
def _deprecation_known() -> Iterator[None]:
    """PyTorch announces the end of this API and of its tensors; docs/decisions.md says what is to be done then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*(torch\.ao\.quantization|quantized tensor creation).*")
        yield
