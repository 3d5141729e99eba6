"""The network as it is exported: with temperature and out-of-distribution score."""

import copy
from typing import cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.network.slice_network import SliceNetwork
from training.network.vgg import Features


class Density(nn.Module):
    """Distance of features from those of the training slices; their own average is 1.

    Squared Mahalanobis distance in a principal subspace plus the part outside it (probabilistic principal components,
    Tipping & Bishop 1999, doi 10.1111/1467-9868.00196), divided by the number of features.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    axes: torch.Tensor
    deviations: torch.Tensor
    noise: torch.Tensor

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("axes", torch.zeros(components, features))
        self.register_buffer("deviations", torch.ones(components))
        self.register_buffer("noise", torch.ones(1))

    def fit(self, pooled: torch.Tensor) -> None:
        """Estimate the density from float (N, D) training features, N > components."""
        components = len(self.deviations)
        mean, scale = pooled.mean(0), pooled.std(0).clamp_min(1e-6)
        _, singular, axes = torch.linalg.svd((pooled - mean) / scale, full_matrices=False)
        variances = singular.square() / (len(pooled) - 1)
        rest = variances[components:].sum() / (pooled.shape[1] - components)
        for name, value in (
            ("mean", mean),
            ("scale", scale),
            ("axes", axes[:components]),
            ("deviations", variances[:components].sqrt()),
            ("noise", rest.sqrt().clamp_min(1e-3).view(1)),
        ):
            getattr(self, name).copy_(value)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """float (N, D) -> float32 (N,)."""
        centred = (pooled.float() - self.mean.float()) / self.scale.float()
        along = centred @ self.axes.float().T
        outside = (centred.square().sum(1) - along.square().sum(1)).clamp_min(0.0) / self.noise.float().square()
        return ((along / self.deviations.float()).square().sum(1) + outside) / centred.shape[1]


class Deployable(nn.Module):
    """Everything between the service's uint8 slices and its answer, as one module.

    `forward`: uint8 (N, 1, S, S) -> probability of COVID (N,), out-of-distribution score (N,), heat map (N, h, w)
    of the finest map's size; all float32.

    Args:
        network: in evaluation mode.
        temperature: divides the logits.
        density: fitted to the `density_features` of the head.
        least_contrast: standard deviation of grey values below which the out-of-distribution score rises.
    """

    def __init__(
        self, network: SliceNetwork, temperature: float, density: Density, least_contrast: float = 0.0
    ) -> None:
        super().__init__()
        self.normalise = copy.deepcopy(network.normalise)
        self.features = fold_batch_norms(network.features)
        self.head = copy.deepcopy(network.head)
        self.density = density
        self.temperature = temperature
        self.least_contrast = least_contrast

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = self.features(self.normalise(slices))
        logits = self.head(maps).float() / self.temperature
        probability = torch.softmax(logits, dim=1)[:, 1]
        # an even grey image has weak features rather than unusual ones, but is not a slice
        lack = (self.least_contrast / contrast_of(slices)).clamp_min(1.0)
        return probability, self.density(self.head.density_features(maps)) * lack.square(), self.head.heatmap(maps)


def contrast_of(slices: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of the grey values of uint8 (N, 1, S, S) slices, at least 1: float32 (N,)."""
    return slices.float().std((1, 2, 3)).clamp_min(1.0)


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
