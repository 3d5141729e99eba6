"""Heads: from activations to logits and a heat map."""

import torch
from torch import nn


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
