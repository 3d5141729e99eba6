"""Static int8 quantisation of the convolutions, for processors that multiply int8 in hardware.

Jacob et al. 2018, arXiv 1712.05877; weights per output channel, activations per layer with histogram observers. This
is PyTorch's eager-mode quantisation: its successor (torchao, PT2E) writes programs that TorchScript can't hold.
"""

import copy
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.ao import quantization

from service.model.hardware import int8_packed_by_onednn
from training.network.lesion_network import LesionDecoder
from training.network.lesion_reader import LesionReader
from training.network.lung_finder import LungFinder
from training.network.vgg import Features
from training.run.progress import progress


def quantise(reader: LesionReader, slices: Iterable[torch.Tensor]) -> LesionReader:
    """Copy a network with nearly all convolutions in int8: those of `features`, of the finder and of the decoder.

    The finder's first convolution and the two that end in one or two channels stay in fp32, like everything else: they
    are small, and their input or output is read to more than 7 bits. The view checker is small as a whole.

    Args:
        reader: on the CPU, in fp32, batch norms of `features` folded; it does not change.
        slices: uint8 (1, 1, S, S) each, that set the scales.
    """
    quantised = copy.deepcopy(reader)
    with _ignore_deprecation_warnings():
        # fusing keeps every layer's place, and the stub is an additional layer in front
        places = [place + 1 for place in quantised.features.places]
        layers = nn.Sequential(quantization.QuantStub(), *quantised.features).eval()
        pairs = [[str(i), str(i + 1)] for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        quantization.fuse_modules(layers, pairs, inplace=True)  # type: ignore[no-untyped-call]
        quantised.features = Features(layers, places)
        _wrap_finder(quantised.finder)
        _wrap_decoder(quantised.decoder)
        for part in (quantised.features, *_wrapped(quantised)):
            part.qconfig = _settings()  # type: ignore[assignment]
            quantization.prepare(part, inplace=True)  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            for slice_ in progress(slices, "calibrating int8", "slice"):
                quantised(slice_)
        with int8_packed_by_onednn():  # as in the service, so that its predictions are those of the card
            for part in (quantised.features, *_wrapped(quantised)):
                quantization.convert(part, inplace=True)  # type: ignore[no-untyped-call]
    return quantised


def _wrap_finder(finder: LungFinder) -> None:
    """Put all blocks of convolution, batch norm and ReLU but the first between quantisation and its opposite."""
    blocks = [name for name, part in finder.named_modules() if isinstance(part, nn.Sequential) and _is_block(part)]
    for name in blocks[1:]:
        block = finder.get_submodule(name)
        quantization.fuse_modules(block, [["0", "1", "2"]], inplace=True)  # type: ignore[no-untyped-call]
        finder.set_submodule(name, quantization.QuantWrapper(block))


def _is_block(layers: nn.Sequential) -> bool:
    return isinstance(layers[0], nn.Conv2d)


def _wrap_decoder(decoder: LesionDecoder) -> None:
    for name, part in list(decoder.named_modules()):
        if isinstance(part, nn.Conv2d) and part is not decoder.out:
            decoder.set_submodule(name, quantization.QuantWrapper(part))


def _wrapped(reader: LesionReader) -> list[nn.Module]:
    return [part for part in reader.modules() if isinstance(part, quantization.QuantWrapper)]


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
