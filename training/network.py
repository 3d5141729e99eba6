"""The networks: torchvision's VGG with batch norm, its two heads, its ImageNet weights, and what is exported.

VGG: Simonyan & Zisserman 2015, arXiv 1409.1556. Batch norm: Ioffe & Szegedy 2015, arXiv 1502.03167.
"""

import copy
import pickle
from pathlib import Path
from typing import Final, cast
from urllib.error import URLError

import torch
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.config import Recipe
from training.errors import TrainingError

MAP_CHANNELS: Final = 512
"""Channels of VGG's last convolution."""

_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_TORCHVISION_WEIGHTS: Final = {
    "vgg19_bn": torchvision.models.VGG19_BN_Weights.IMAGENET1K_V1,
    "vgg16_bn": torchvision.models.VGG16_BN_Weights.IMAGENET1K_V1,
}


class Normalise(nn.Module):
    """Grey bytes to what ImageNet networks expect: uint8 (N, 1, H, W) -> float (N, 3, H, W).

    It computes in the dtype of its buffers, which is that of the network around it.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        grey = slices.to(self.mean.dtype) / 255
        return ((grey - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class PooledHead(nn.Module):
    """Average and root-mean-square pooling of the last map, and one linear layer: logits (N, 2).

    Because both poolings are sums over positions, the logit splits exactly into one share a position, which is the
    class activation map (Zhou et al. 2016, arXiv 1512.04150).
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * MAP_CHANNELS, 2)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(pool(maps).to(self.linear.weight.dtype))
        return logits

    def heatmap(self, maps: torch.Tensor) -> torch.Tensor:
        """Evidence for class 1 at each position, float32 (N, h, w); its mean is the logit margin less the bias."""
        x = maps.float()
        of_average, of_rms = (self.linear.weight[1] - self.linear.weight[0]).float().chunk(2)
        share = of_average[:, None, None] + of_rms[:, None, None] * x / _rms(x)[:, :, None, None]
        return (x * share).sum(1)


class ClassifierHead(nn.Module):
    """VGG's own three linear layers with the last one replaced by two outputs: logits (N, 2)."""

    def __init__(self, classifier: nn.Sequential) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7))
        self.layers = nn.Sequential(*classifier[:-1], nn.Linear(4096, 2))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(self.pool(maps).flatten(1))
        return logits

    def heatmap(self, maps: torch.Tensor) -> torch.Tensor:
        """Mean activation at each position, float32 (N, h, w): where, but not for which class.

        Three linear layers over all positions at once leave no exact share of the logit to a position.
        """
        return maps.float().mean(1)


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


class SliceNetwork(nn.Module):
    """uint8 (N, 1, S, S) -> logits (N, 2) of NonCOVID and COVID."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        with torch.device("meta"):  # the classifier's 120 million weights get memory only where they are wanted
            vgg = torchvision.models.get_model(recipe.architecture, weights=None)
        self.normalise = Normalise()
        # without the last max pooling: the 14 x 14 map is the finest with all layers
        self.features = materialise(vgg.features[:-1])
        self.head: PooledHead | ClassifierHead
        self.head = PooledHead() if recipe.head == "pooled" else ClassifierHead(materialise(vgg.classifier))

    def maps(self, slices: torch.Tensor) -> torch.Tensor:
        """The last convolution's activations, (N, 512, 14, 14)."""
        return cast(torch.Tensor, self.features(self.normalise(slices)))

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.head(self.maps(slices)))


class Density(nn.Module):
    """How unusual pooled features are: squared Mahalanobis distance in a principal subspace, plus what lies outside it.

    Probabilistic principal components (Tipping & Bishop 1999, doi 10.1111/1467-9868.00196), per feature, so that 1 is
    what training slices have on average.
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
    """What is exported: everything between the service's uint8 slices and its answer.

    `forward`: uint8 (N, 1, S, S) -> probability of COVID (N,), out-of-distribution score (N,), heatmap
    (N, S / 16, S / 16); all float32.
    """

    def __init__(self, network: SliceNetwork, temperature: float, density: Density) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.features = fold_batch_norms(network.features)
        self.head = copy.deepcopy(network.head)
        self.density = density
        self.temperature = temperature

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = self.features(self.normalise(slices))
        logits = self.head(maps).float() / self.temperature
        probability = torch.softmax(logits, dim=1)[:, 1]
        return probability, self.density(pool(maps)), self.head.heatmap(maps)


def fold_batch_norms(features: nn.Sequential) -> nn.Sequential:
    """The same function with each batch norm folded into the convolution before it; evaluation mode only.

    fp16 ends at 65,504, and ImageNet's first running variances lie above: left unfolded, rounding moved probabilities
    by up to 0.16.
    """
    layers: list[nn.Module] = []
    for layer in features:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(cast(nn.Conv2d, layers[-1]).eval(), layer.eval())
        else:
            layers.append(layer)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def pool(maps: torch.Tensor) -> torch.Tensor:
    """Average and root-mean-square over positions: (N, C, h, w) -> float32 (N, 2 C)."""
    x = maps.float()
    return torch.cat([x.mean((2, 3)), _rms(x)], dim=1)


def _rms(x: torch.Tensor) -> torch.Tensor:
    # the floor keeps the gradient of a dead channel finite
    return x.square().mean((2, 3)).clamp_min(1e-12).sqrt()


def load_imagenet(network: SliceNetwork, recipe: Recipe, weights: Path | None) -> str:
    """Put ImageNet weights into the convolutions, and into the classifier's hidden layers where the file has them.

    Args:
        network: the network to fill.
        recipe: says which architecture it is.
        weights: a state dict in torchvision's layout; None downloads torchvision's own.

    Returns:
        Where the weights came from and which layers they do not cover, for the card.

    Raises:
        TrainingError: no file, no network, or weights of another architecture.
    """
    state, source = _read_weights(recipe, weights)
    features = {k.removeprefix("features."): v.float() for k, v in state.items() if k.startswith("features.")}
    try:
        network.features.load_state_dict(features)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(f"{source}: not the weights of {recipe.architecture}: {reason}") from error
    hidden = {k.removeprefix("classifier."): v for k, v in state.items() if k.startswith("classifier.")}
    if not isinstance(network.head, ClassifierHead):
        return source
    if not hidden:
        return f"{source}; the classifier's hidden layers start at random, the file has none"
    wanted = {k: v.float() for k, v in hidden.items() if not k.startswith("6.")}
    network.head.layers.load_state_dict(wanted, strict=False)
    return source


def _read_weights(recipe: Recipe, weights: Path | None) -> tuple[dict[str, torch.Tensor], str]:
    if weights is None:
        try:
            default = _TORCHVISION_WEIGHTS[recipe.architecture]
            return dict(default.get_state_dict(check_hash=True)), f"torchvision {default}"
        except (URLError, OSError) as error:
            raise TrainingError(
                f"torchvision's ImageNet weights of {recipe.architecture} can't be downloaded ({error}); offline, pass "
                f"--weights FILE, a state dict in torchvision's layout (its {recipe.architecture} checkpoint)"
            ) from error
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TrainingError(f"{weights}: can't read the weights: {error.strerror}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise TrainingError(f"{weights}: not a PyTorch state dict; pass torchvision's checkpoint") from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise TrainingError(f"{weights}: not a state dict of tensors; pass torchvision's checkpoint")
    return state, weights.name
