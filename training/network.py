"""The networks: torchvision's VGG with batch norm, its two heads, its ImageNet weights, and what is exported.

VGG: Simonyan & Zisserman 2015, arXiv 1409.1556. Batch norm: Ioffe & Szegedy 2015, arXiv 1502.03167.
"""

import copy
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Final, cast
from urllib.error import URLError

import torch
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.config import Recipe
from training.errors import TrainingError

_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_TORCHVISION_WEIGHTS: Final = {
    "vgg19_bn": torchvision.models.VGG19_BN_Weights.IMAGENET1K_V1,
    "vgg16_bn": torchvision.models.VGG16_BN_Weights.IMAGENET1K_V1,
}


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


class PooledHead(nn.Module):
    """Average and root-mean-square pooling of some maps, and one linear layer: logits (N, 2).

    Because both poolings are sums over positions, the logit splits exactly into one share a position, which is the
    class activation map (Zhou et al. 2016, arXiv 1512.04150), here of several layers at once.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(2 * sum(channels), 2)

    def pooled(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """What the linear layer sees: float32 (N, 2 sum of C)."""
        return pool(maps)

    def gate_features(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """What the density sees: float32 (N, F)."""
        return pool(maps)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return _linear(self.pooled(maps), self.linear.weight, self.linear.bias)

    def heatmap(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Evidence for class 1 at each position of the finest map, float32 (N, h, w).

        Its mean is the logit margin less the bias.
        """
        weights = torch.split(_margin_of(self.linear.weight), [2 * each for each in self.channels])
        evidence: list[torch.Tensor] = []
        for weight, each in zip(weights, maps):  # noqa: B905 - TorchScript knows no strict
            x = _float(each)
            of_average, of_rms = weight.chunk(2)
            share = of_average[:, None, None] + of_rms[:, None, None] * x / _rms(x)[:, :, None, None]
            evidence.append((x * share).sum(1))
        return _on_the_finest(evidence)


class CovarianceHead(nn.Module):
    """Covariances between directions of each map, and one linear layer: logits (N, 2).

    Which features occur together tells textures apart better than how much of each there is (bilinear pooling, Lin et
    al. 2015, arXiv 1504.07889; Gram matrices, Gatys et al. 2015, arXiv 1505.07376). The directions are a map's leading
    principal components (compact pooling, arXiv 1511.06062). Each is divided by the square root of its own standard
    deviation in the slice, so that strong ones do not drown the others, and each map's covariances by their Frobenius
    norm.

    A covariance is a sum over positions, so the logit splits into one share a position as that of PooledHead does.
    """

    upper: torch.Tensor

    def __init__(self, channels: list[int], components: int) -> None:
        super().__init__()
        self.channels = channels
        self.directions = nn.Parameter(nn.init.orthogonal_(torch.empty(sum(channels), components)))
        rows, columns = torch.triu_indices(components, components)
        self.register_buffer("upper", rows * components + columns, persistent=False)
        self.linear = nn.Linear(len(channels) * len(rows), 2)

    def fit_directions(self, maps: list[torch.Tensor]) -> None:
        """Take the leading principal components of each map, (N, C, h, w), over all its positions."""
        leading = []
        for each in maps:
            positions = each.float().movedim(1, -1).flatten(0, 2)
            centred = positions - positions.mean(0)
            _, axes = torch.linalg.eigh(centred.T @ centred)  # variances rise
            leading.append(axes.flip(1)[:, : self.directions.shape[1]])
        with torch.no_grad():
            self.directions.copy_(torch.cat(leading))

    def pooled(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """What the linear layer sees: float32 (N, K (K + 1) / 2 for each map), for K components."""
        covariances: list[torch.Tensor] = []
        for directions, each in zip(torch.split(self.directions, self.channels), maps):  # noqa: B905 - TorchScript
            x = _balanced(directions, each)
            covariance = x.transpose(1, 2) @ x / x.shape[1]
            covariances.append((covariance / _norm(covariance)).flatten(1)[:, self.upper])
        return torch.cat(covariances, dim=1)

    def gate_features(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """What the density sees: float32 (N, F). What occurs together, and how much of each feature there is."""
        return torch.cat([pool(maps), self.pooled(maps)], dim=1)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return _linear(self.pooled(maps), self.linear.weight, self.linear.bias)

    def heatmap(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Evidence for class 1 at each position of the finest map, float32 (N, h, w).

        Its mean is the logit margin less the bias.
        """
        weights = _margin_of(self.linear.weight).chunk(len(maps))
        evidence: list[torch.Tensor] = []
        for i, directions in enumerate(torch.split(self.directions, self.channels)):
            x = _balanced(directions, maps[i])
            of_pairs = torch.zeros(x.shape[2] * x.shape[2], device=x.device)
            of_pairs[self.upper] = weights[i]
            norm = _norm(x.transpose(1, 2) @ x / x.shape[1])[:, :, 0]
            shares = ((x @ of_pairs.view(x.shape[2], x.shape[2])) * x).sum(2) / norm
            evidence.append(shares.view(-1, maps[i].shape[2], maps[i].shape[3]))
        return _on_the_finest(evidence)


class ClassifierHead(nn.Module):
    """VGG's own three linear layers with the last one replaced by two outputs: logits (N, 2)."""

    def __init__(self, classifier: nn.Sequential) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7))
        self.layers = nn.Sequential(*classifier[:-1], nn.Linear(4096, 2))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.layers(self.pool(maps[-1]).flatten(1))
        return logits

    def gate_features(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """What the density sees: float32 (N, F)."""
        return pool(maps)

    def heatmap(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Mean activation at each position, float32 (N, h, w): where, but not for which class.

        Three linear layers over all positions at once leave no exact share of the logit to a position.
        """
        return maps[-1].float().mean(1)


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


def _channels_of(features: Features) -> list[int]:
    """Channels of each map."""
    widths: list[int] = []
    for layer in features:
        widths.append(layer.out_channels if isinstance(layer, nn.Conv2d) else widths[-1])
    return [widths[place] for place in features.places]


class SliceNetwork(nn.Module):
    """uint8 (N, 1, S, S) -> logits (N, 2) of NonCOVID and COVID."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        features, classifier = _empty_vgg(recipe)
        self.normalise = Normalise(recipe.magnify)
        activations = activations_of(features)
        places = [activations[name] for name in recipe.pooled_layers]
        # nothing after the last layer that is looked at, so never the last max pooling
        self.features = Features(materialise(features[: places[-1] + 1]), places)
        self.head: PooledHead | CovarianceHead | ClassifierHead
        if recipe.head == "pooled":
            self.head = PooledHead(_channels_of(self.features))
        elif recipe.head == "covariance":
            self.head = CovarianceHead(_channels_of(self.features), recipe.components)
        else:
            self.head = ClassifierHead(materialise(classifier))

    def maps(self, slices: torch.Tensor) -> list[torch.Tensor]:
        """The activations of the pooled layers, finest first: float (N, C, h, w) each."""
        return cast(list[torch.Tensor], self.features(self.normalise(slices)))

    def logits(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """The head's answer to such maps; outside of autocast, whose 8 or 11 bits are too few for covariances."""
        if isinstance(self.head, ClassifierHead):  # 120 million weights, which autocast is for
            return cast(torch.Tensor, self.head(maps))
        with torch.autocast(maps[0].device.type, enabled=False):
            return cast(torch.Tensor, self.head(maps))

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        return self.logits(self.maps(slices))


class Density(nn.Module):
    """How unusual features are: squared Mahalanobis distance in a principal subspace, plus what lies outside it.

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

    `forward`: uint8 (N, 1, S, S) -> probability of COVID (N,), out-of-distribution score (N,), heatmap (N, h, w) of
    the finest map's size; all float32.

    Args:
        network: in evaluation mode.
        temperature: what the logits are divided by.
        density: fitted to the features that the head gives the gate.
        least_contrast: standard deviation of grey values below which the out-of-distribution score grows.
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
        # a page of one grey leaves features that are weak rather than strange, and is no slice either
        lack = (self.least_contrast / contrast_of(slices)).clamp_min(1.0)
        return probability, self.density(self.head.gate_features(maps)) * lack.square(), self.head.heatmap(maps)


def contrast_of(slices: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the grey values of uint8 (N, 1, S, S) slices, at least 1: float32 (N,)."""
    return slices.float().std((1, 2, 3)).clamp_min(1.0)


def fold_batch_norms(features: Features) -> Features:
    """The same function with each batch norm folded into the convolution before it; evaluation mode only.

    fp16 ends at 65,504, and ImageNet's first running variances lie above: left unfolded, rounding moved probabilities
    by up to 0.16.
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


def pool(maps: list[torch.Tensor]) -> torch.Tensor:
    """Average and root-mean-square over positions of each map: (N, C, h, w) each -> float32 (N, 2 sum of C)."""
    pooled: list[torch.Tensor] = []
    for each in maps:
        x = _float(each)
        pooled += [x.mean((2, 3)), _rms(x)]
    return torch.cat(pooled, dim=1)


def _float(x: torch.Tensor) -> torch.Tensor:
    """To float32, from int8 maps too."""
    return x.dequantize() if x.is_quantized else x.float()


def _rms(x: torch.Tensor) -> torch.Tensor:
    # the floor keeps the gradient of a dead channel finite
    return x.square().mean((2, 3)).clamp_min(1e-12).sqrt()


def _balanced(directions: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A map along (C, K) directions, centred, over the root of each one's deviation: (N, C, h, w) -> (N, h w, K)."""
    along = _float(x).flatten(2).transpose(1, 2) @ directions.float()
    centred = along - along.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).clamp_min(1e-6).pow(0.25)


def _norm(covariance: torch.Tensor) -> torch.Tensor:
    """Frobenius norm of (N, K, K): (N, 1, 1)."""
    return covariance.square().sum((1, 2), keepdim=True).clamp_min(1e-12).sqrt()


def _linear(pooled: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A linear layer in fp32 whatever its weights are stored in: the sums are long, and it is the last step of all."""
    return nn.functional.linear(pooled, weight.float(), bias.float())


def _margin_of(weight: torch.Tensor) -> torch.Tensor:
    """Weight of the logit margin of class 1 over class 0: (2, D) -> float32 (D,)."""
    return (weight[1] - weight[0]).float()


def _on_the_finest(evidence: list[torch.Tensor]) -> torch.Tensor:
    """Sum of (N, h, w) maps on the first one's grid."""
    total = evidence[0]
    for each in evidence[1:]:
        total = total + nn.functional.interpolate(each[:, None], total.shape[1:], mode="nearest")[:, 0]
    return total


def _empty_vgg(recipe: Recipe) -> tuple[nn.Sequential, nn.Sequential]:
    """torchvision's features and classifier without memory: 120 million weights get some only where they are wanted."""
    with torch.device("meta"):
        vgg = torchvision.models.get_model(recipe.architecture, weights=None)
    return vgg.features, vgg.classifier


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
    whole, _ = _empty_vgg(recipe)
    try:
        whole.load_state_dict(features, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(f"{source}: not the weights of {recipe.architecture}: {reason}") from error
    network.features.load_state_dict(whole[: len(network.features)].state_dict())
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
