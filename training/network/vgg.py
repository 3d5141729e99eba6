"""torchvision's VGG with batch norm: normalisation of the input, layers and activations.

VGG: Simonyan & Zisserman 2015, arXiv 1409.1556. Batch norm: Ioffe & Szegedy 2015, arXiv 1502.03167.
"""

from collections.abc import Iterable
from typing import Final, cast

import torch
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """ImageNet's normalisation of grey bytes: uint8 (N, 1, H, W) -> float (N, 3, H, W).

    The result has the dtype of the buffers, which is that of the network.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        grey = (slices.float() / 255).to(self.mean.dtype)
        return ((grey - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def initialise_weights(layers: nn.Sequential) -> nn.Sequential:
    """Allocate layers that were built without memory, on the CPU, with torchvision's initial weights for VGG.

    He et al. 2015, arXiv 1502.01852. With torch's default weights the signal vanishes over 16 convolutions.
    """
    layers.to_empty(device="cpu")
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layers


class Features(nn.Sequential):
    """Sequence of layers that returns the activations at some places: (N, 3, S, S) -> a list of (N, C, h, w)."""

    def __init__(self, layers: Iterable[nn.Module], places: list[int]) -> None:
        super().__init__(*layers)
        self.places = places

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = []
        for place, layer in enumerate(self):
            x = layer(x)
            if place in self.places:
                maps.append(x)
        return maps


def fold_batch_norms(features: Features) -> Features:
    """Fold each batch norm into the convolution before it; the function stays the same in evaluation mode.

    ImageNet's first running variances are above 65,504, the largest fp16 number. Without folding, rounding changed
    probabilities by up to 0.16.
    """
    layers: list[nn.Module] = []
    places = []
    for place, layer in enumerate(features):
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(cast(nn.Conv2d, layers[-1]).eval(), layer.eval())
        else:
            layers.append(layer)
        if place in features.places:
            places.append(len(layers) - 1)
    return Features(layers, places).to(memory_format=torch.channels_last)


def activations_of(layers: Iterable[nn.Module]) -> dict[str, int]:
    """Return the places of VGG's activations by the paper's names: `5_4` is the fourth of the fifth block."""
    places, block, layer_of_block = {}, 1, 0
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.ReLU):
            layer_of_block += 1
            places[f"{block}_{layer_of_block}"] = place
        elif isinstance(layer, nn.MaxPool2d):
            block, layer_of_block = block + 1, 0
    return places


def empty_vgg(architecture: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Build torchvision's features and classifier without memory; only the layers that are used get some."""
    with torch.device("meta"):
        vgg = torchvision.models.get_model(architecture, weights=None)
    return vgg.features, vgg.classifier
