"""Hints of ImageNet's layers, which keep ImageNet's features in the network while it learns lesions."""

import copy
from typing import Final, cast

import torch
from torch import nn

from training.network.lesion_network import LesionNetwork
from training.network.vgg import activations_of

HINT: Final = "5_1"
"""Activation of ImageNet's network that must stay predictable from the trained one."""


class HintedNetwork(nn.Module):
    """A lesion network with a hint: a linear map of its activation 5_1 must predict that of ImageNet's network.

    A hint with a regressor as in FitNets (Romero et al. 2015, arXiv 1412.6550), here to prevent forgetting as in
    learning without forgetting (Li & Hoiem 2016, arXiv 1606.09282). It is used only in training.

    `forward`: pictures as for `LesionNetwork`; bool (N,), whether a picture gets a hint -> its outputs; float (number
    of hints,), mean squared error of each hint in units of each channel's deviation.

    Args:
        network: with ImageNet's weights; its layers are trained in place, except the first `frozen` ones.
        frozen: how many of VGG's first layers keep ImageNet's weights; ImageNet's network shares their output.
    """

    scale: torch.Tensor

    def __init__(self, network: LesionNetwork, frozen: int) -> None:
        super().__init__()
        layers = list(network.features)
        place = activations_of(layers)[HINT]
        self.network = network.eval()  # batch norms keep ImageNet's statistics
        for layer in layers[:frozen]:
            layer.requires_grad_(False)
        self.teacher = copy.deepcopy(nn.Sequential(*layers[frozen : place + 1])).requires_grad_(False)
        self.places = sorted({frozen - 1, place, *network.features.places})
        self.shared, self.hint = self.places.index(frozen - 1), self.places.index(place)
        self.read = [self.places.index(read_place) for read_place in network.features.places]
        norm = cast(nn.BatchNorm2d, layers[place - 1])
        self.register_buffer("scale", norm.weight.detach().abs().clamp_min(1e-3)[:, None, None].clone())
        self.regressor = nn.Conv2d(norm.num_features, norm.num_features, 1)
        with torch.no_grad():  # at the start the network has ImageNet's weights, so there is no error
            nn.init.zeros_(cast(nn.Parameter, self.regressor.bias))
            self.regressor.weight.copy_(torch.diag(1 / self.scale[:, 0, 0])[:, :, None, None])

    def forward(
        self, pictures: torch.Tensor, hinted: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
        maps = self.network.features.at(self.network.normalise(255 * pictures), self.places)
        outputs = self.network.read([maps[i] for i in self.read])
        with torch.no_grad():
            wanted = self.teacher(maps[self.shared][hinted]).float() / self.scale
        error = self.regressor(maps[self.hint][hinted]).float() - wanted
        return outputs, error.square().mean((1, 2, 3))

    def trainable(self) -> dict[str, torch.Tensor]:
        """Return the trained weights by name: those of the layers that are not frozen, and the regressor's."""
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}
