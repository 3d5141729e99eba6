"""Heads: activations to logits and a heat map."""

from typing import cast

import torch
from torch import nn


class PooledHead(nn.Module):
    """Average and root-mean-square pooling of some maps, then one linear layer: logits (N, 2).

    Both poolings are sums over positions, so the logit is exactly a sum of one share per position. These shares are the
    class activation map (Zhou et al. 2016, arXiv 1512.04150), here of several layers.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(2 * sum(channels), 2)

    def pooled(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the input of the linear layer: float32 (N, 2 sum of C)."""
        return pool(maps)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return _linear(self.pooled(maps), self.linear.weight, self.linear.bias)

    def heatmap(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the evidence for class 1 at each position of the finest map: float32 (N, h, w).

        Its mean is the logit margin without the bias.
        """
        weights = torch.split(_margin_of(self.linear.weight), [2 * each for each in self.channels])
        evidence: list[torch.Tensor] = []
        for weight, each in zip(weights, maps):  # noqa: B905 - TorchScript has no strict
            x = _float(each)
            of_average, of_rms = weight.chunk(2)
            share = of_average[:, None, None] + of_rms[:, None, None] * x / _rms(x)[:, :, None, None]
            evidence.append((x * share).sum(1))
        return _sum_on_finest_grid(evidence)


class CovarianceHead(nn.Module):
    """Covariances between directions of each map, then one linear layer: logits (N, 2).

    Features that occur together describe a texture better than the amount of each one (bilinear pooling, Lin et al.
    2015, arXiv 1504.07889; Gram matrices, Gatys et al. 2015, arXiv 1505.07376). The directions are the leading
    principal components of a map (compact pooling, arXiv 1511.06062). Each is divided by the root of its standard
    deviation in the slice, so that strong ones do not dominate, and the covariances of each map by their norm.

    A covariance is a sum over positions, so the logit is a sum of one share per position, like that of PooledHead.
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
        """Set the directions to the leading principal components of each map, (N, C, h, w), over all positions."""
        leading = []
        for each in maps:
            positions = each.float().movedim(1, -1).flatten(0, 2)
            centred = positions - positions.mean(0)
            _, axes = torch.linalg.eigh(centred.T @ centred)  # variances rise
            leading.append(axes.flip(1)[:, : self.directions.shape[1]])
        with torch.no_grad():
            self.directions.copy_(torch.cat(leading))

    def pooled(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the input of the linear layer: float32 (N, K (K + 1) / 2 for each map), for K components."""
        covariances: list[torch.Tensor] = []
        for directions, each in zip(torch.split(self.directions, self.channels), maps):  # noqa: B905 - TorchScript
            x = _project_and_scale(directions, each)
            covariance = x.transpose(1, 2) @ x / x.shape[1]
            covariances.append((covariance / _norm(covariance)).flatten(1)[:, self.upper])
        return torch.cat(covariances, dim=1)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return _linear(self.pooled(maps), self.linear.weight, self.linear.bias)

    def heatmap(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the evidence for class 1 at each position of the finest map: float32 (N, h, w).

        Its mean is the logit margin without the bias.
        """
        weights = _margin_of(self.linear.weight).chunk(len(maps))
        evidence: list[torch.Tensor] = []
        for i, directions in enumerate(torch.split(self.directions, self.channels)):
            x = _project_and_scale(directions, maps[i])
            of_pairs = torch.zeros(x.shape[2] * x.shape[2], device=x.device)
            of_pairs[self.upper] = weights[i]
            norm = _norm(x.transpose(1, 2) @ x / x.shape[1])[:, :, 0]
            shares = ((x @ of_pairs.view(x.shape[2], x.shape[2])) * x).sum(2) / norm
            evidence.append(shares.view(-1, maps[i].shape[2], maps[i].shape[3]))
        return _sum_on_finest_grid(evidence)


class ClassifierHead(nn.Module):
    """VGG's three linear layers, the last one replaced by one with two outputs: logits (N, 2)."""

    def __init__(self, classifier: nn.Sequential) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7))
        hidden = cast(nn.Linear, classifier[-1]).in_features
        self.layers = nn.Sequential(*classifier[:-1], nn.Linear(hidden, 2))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.layers(self.pool(maps[-1]).flatten(1))
        return logits

    def heatmap(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the mean activation at each position: float32 (N, h, w). It says nothing about the class.

        Three linear layers over all positions give no exact share of the logit to a position.
        """
        return maps[-1].float().mean(1)


def pool(maps: list[torch.Tensor]) -> torch.Tensor:
    """Average and root mean square over the positions of each map: (N, C, h, w) each -> float32 (N, 2 sum of C)."""
    pooled: list[torch.Tensor] = []
    for each in maps:
        x = _float(each)
        pooled += [x.mean((2, 3)), _rms(x)]
    return torch.cat(pooled, dim=1)


def _float(x: torch.Tensor) -> torch.Tensor:
    """Convert to float32, also from int8 maps."""
    return x.dequantize() if x.is_quantized else x.float()


def _rms(x: torch.Tensor) -> torch.Tensor:
    # the floor keeps the gradient of a dead channel finite
    return x.square().mean((2, 3)).clamp_min(1e-12).sqrt()


def _project_and_scale(directions: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Project a map onto (C, K) directions, centred and scaled: (N, C, h, w) -> (N, h w, K)."""
    along = _float(x).flatten(2).transpose(1, 2) @ directions.float()
    centred = along - along.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).clamp_min(1e-6).pow(0.25)


def _norm(covariance: torch.Tensor) -> torch.Tensor:
    """Return the Frobenius norm of (N, K, K): (N, 1, 1)."""
    return covariance.square().sum((1, 2), keepdim=True).clamp_min(1e-12).sqrt()


def _linear(pooled: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Apply a linear layer in fp32, whatever the format of its weights: its sums are long."""
    return nn.functional.linear(pooled, weight.float(), bias.float())


def _margin_of(weight: torch.Tensor) -> torch.Tensor:
    """Return the weight of the margin of class 1 over class 0: (2, D) -> float32 (D,)."""
    return (weight[1] - weight[0]).float()


def _sum_on_finest_grid(evidence: list[torch.Tensor]) -> torch.Tensor:
    """Sum (N, h, w) maps on the grid of the first one."""
    total = evidence[0]
    for each in evidence[1:]:
        total = total + nn.functional.interpolate(each[:, None], total.shape[1:], mode="nearest")[:, 0]
    return total
