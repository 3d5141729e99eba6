"""torchvision's VGG with batch norm: normalisation of its input, its layers and its activations.

VGG: Simonyan & Zisserman 2015, arXiv 1409.1556. Batch norm: Ioffe & Szegedy 2015, arXiv 1502.03167.
"""

from collections.abc import Iterable
from typing import Final

import torch
import torchvision
from torch import nn

from training.recipe import Recipe

_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)


_IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Grey bytes to what ImageNet networks expect: uint8 (N, 1, H, W) -> float (N, 3, M H, M W).

    It answers in the dtype of its buffers, which is that of the network around it.

    Args:
        magnify: M, which the slice is enlarged by, bilinearly.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, magnify: float = 1.0) -> None:
        super().__init__()
        self.magnify = magnify
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        grey = slices.float() / 255
        if self.magnify > 1:
            grey = nn.functional.interpolate(grey, scale_factor=self.magnify, mode="bilinear")
        grey = grey.to(self.mean.dtype)
        return ((grey - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def materialise(layers: nn.Sequential) -> nn.Sequential:
    """Give layers that were built without memory theirs, on the CPU, with the initial weights torchvision gives a VGG.

    He et al. 2015, arXiv 1502.01852; torch's own initial weights let the signal die out over 16 convolutions.
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
    """Layers in a row that answer the activations at some of their places: (N, 3, S, S) -> a list of (N, C, h, w)."""

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


def activations_of(layers: Iterable[nn.Module]) -> dict[str, int]:
    """Places of VGG's activations by the paper's names: `5_4` is the fourth of the fifth block."""
    places, block, layer_of_block = {}, 1, 0
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.ReLU):
            layer_of_block += 1
            places[f"{block}_{layer_of_block}"] = place
        elif isinstance(layer, nn.MaxPool2d):
            block, layer_of_block = block + 1, 0
    return places


def channels_of(features: Features) -> list[int]:
    """Channels of each map."""
    widths: list[int] = []
    for layer in features:
        widths.append(layer.out_channels if isinstance(layer, nn.Conv2d) else widths[-1])
    return [widths[place] for place in features.places]


def empty_vgg(recipe: Recipe) -> tuple[nn.Sequential, nn.Sequential]:
    """torchvision's features and classifier without memory: 120 million weights get some only where they are wanted."""
    with torch.device("meta"):
        vgg = torchvision.models.get_model(recipe.architecture, weights=None)
    return vgg.features, vgg.classifier
