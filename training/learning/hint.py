"""What keeps ImageNet's knowledge in the network while it learns lesions: hints of ImageNet's own layers."""

import copy
from typing import Final, cast

import torch
from torch import nn

from training.network.lesion_network import LesionNetwork
from training.network.vgg import activations_of

HINT: Final = "5_1"
"""Activation whose content in ImageNet's network must stay readable in the trained one."""


class HintedNetwork(nn.Module):
    """A lesion network next to ImageNet's frozen layers, whose 5_1 must follow linearly from the network's own 5_1.

    A hint with a regressor as in FitNets (Romero et al. 2015, arXiv 1412.6550), here against forgetting as in learning
    without forgetting (Li & Hoiem 2016, arXiv 1606.09282). It is used in training alone.

    `forward`: pictures as for `LesionNetwork`; bool (N,), which of them get a hint -> its outputs; float (number of
    hints,), mean squared error of each hint in units of each channel's deviation.

    Args:
        network: with ImageNet's weights; its layers are taught in place, and are frozen up to `frozen`.
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
        self.read = [self.places.index(each) for each in network.features.places]
        norm = cast(nn.BatchNorm2d, layers[place - 1])
        self.register_buffer("scale", norm.weight.detach().abs().clamp_min(1e-3)[:, None, None].clone())
        self.regressor = nn.Conv2d(norm.num_features, norm.num_features, 1)
        with torch.no_grad():  # the network is ImageNet's at the start, so there is no error
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
        """Return everything that is learned, by name: the network's layers that are not frozen, and the regressor."""
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}
