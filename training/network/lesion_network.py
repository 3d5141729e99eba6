"""The network that finds lung and lesion inside the lung box and predicts from them alone."""

from typing import Final, cast

import torch
from torch import nn

from training.network.vgg import Features, Normalise, activations_of, empty_vgg, initialise_weights

ACTIVATIONS: Final = ("3_4", "4_4", "5_2", "5_4")
"""Maps at 1/4, 1/8, 1/16 and 1/16 of the picture: the decoder sees all but 5_2, which the appearance probe reads."""

STRIDE: Final = 4
"""Pixels of the picture a cell of the decoder's maps."""

BOUND: Final = 3.0
"""Largest absolute log odds of appearance, so that it never outweighs the absence of lesions."""

_NO_SHARE: Final = 0.003
_USUAL_SHARE: Final = 0.03


def pyramid_and_probed(maps: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Split the maps of `ACTIVATIONS` into those of the decoder and that of the appearance probe."""
    return [maps[0], maps[1], maps[3]], maps[2]


class LesionDecoder(nn.Module):
    """Lung and lesion at each cell, from VGG's maps at three depths (feature pyramid, Lin et al. 2017, 1612.03144).

    `forward`: three maps, finest first -> float32 logits (N, 2, h, w) of lung and lesion at the finest map's size.
    """

    def __init__(self, channels: list[int], width: int = 64) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in channels)
        self.smooth_middle = nn.Conv2d(width, width, 3, padding=1)
        self.smooth_finest = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 2, 1)
        nn.init.constant_(self.out.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        sides: list[torch.Tensor] = []
        for i, (lateral, norm) in enumerate(zip(self.laterals, self.norms)):  # noqa: B905 - TorchScript
            # contiguous: in channels-last layout, the threads share a group and its sums, so that bits depend on them
            sides.append(norm(lateral(maps[i]).contiguous()))
        middle = sides[1] + nn.functional.interpolate(sides[2], scale_factor=2.0, mode="nearest")
        middle = torch.relu(self.smooth_middle(torch.relu(middle)))
        finest = sides[0] + nn.functional.interpolate(middle, scale_factor=2.0, mode="bilinear", align_corners=False)
        finest = torch.relu(self.smooth_finest(torch.relu(finest)))
        cells: torch.Tensor = self.out(finest)
        return cells.float()


class Appearance(nn.Module):
    """Appearance head of the training: log odds of COVID-19 against other disease, within -BOUND and BOUND.

    Features are averaged over the lung and over the lesions alone, so nothing outside a lung adds to them.
    """

    def __init__(self, channels: list[int], width: int = 96, dropout: float = 0.3) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * len(channels) * width, 1)
        with torch.no_grad():
            self.linear.weight.mul_(0.3)

    def forward(self, maps: list[torch.Tensor], lung: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
        """Compute the log odds, float32 (N,).

        Args:
            maps: of 4_4 and 5_4, at 1/2 and 1/4 of the masks' size.
            lung, lesion: float32 (N, 1, h, w), probabilities; lesion is inside lung.
        """
        pooled: list[torch.Tensor] = []
        for i, reduce in enumerate(self.reduce):
            features = torch.relu(reduce(maps[i])).float()
            cells = 2 << i
            of_lung = nn.functional.avg_pool2d(lung, cells)
            of_lesion = (
                nn.functional.avg_pool2d(lesion, cells) + 0.02 * of_lung
            )  # a clear lung has no lesion to look at
            for weight in (of_lung, of_lesion):
                pooled.append((features * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1e-3))
        joined = self.dropout(torch.cat(pooled, dim=1))
        odds = nn.functional.linear(joined, self.linear.weight.float(), self.linear.bias.float())[:, 0]
        return BOUND * torch.tanh(odds / BOUND)


class AppearanceProbe(nn.Module):
    """Log odds of COVID-19 against other disease: one linear layer on averages and deviations of 5_2 over the lesions.

    It is fitted to the trained network's maps. On left-out papers and SARS-CoV-2-CT it orders slices better than
    `Appearance`, which is trained with the network (AUC 0.95 and 0.74, 0.91 and 0.47; docs/experiments.md).
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        features = 2 * channels
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear = nn.Linear(features, 1)
        self.bound = BOUND  # TorchScript sees attributes, not globals

    def pool(self, features: torch.Tensor, lung: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
        """Average and deviation of a map of C channels over the lesions, float32 (N, 2 C); of the lung if it has none.

        Args:
            features: map of 5_2, at 1/4 of the masks' size.
            lung, lesion: float32 (N, 1, h, w), probabilities; lesion is inside lung.
        """
        values = features.float()
        weight = nn.functional.avg_pool2d(lesion, 4) + 0.02 * nn.functional.avg_pool2d(lung, 4)
        share = weight / (weight.sum((2, 3), keepdim=True) + 1e-3)
        average = (values * share).sum((2, 3))
        square = (values * values * share).sum((2, 3))
        return torch.cat([average, (square - average * average).clamp_min(0.0).sqrt()], dim=1)

    def forward(self, features: torch.Tensor, lung: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
        """Compute log odds of COVID by appearance, float32 (N,), within -BOUND and BOUND; arguments as in `pool`."""
        standard = (self.pool(features, lung, lesion) - self.mean.float()) / self.scale.float()
        odds = nn.functional.linear(standard, self.linear.weight.float(), self.linear.bias.float())[:, 0]
        return self.bound * torch.tanh(odds / self.bound)


class Evidence(nn.Module):
    """Lesion head of the training, which rises with the lesion share. The model file has `surest_lesion` instead."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.2))
        self.offset = nn.Parameter(torch.tensor(0.0))

    def forward(self, share: torch.Tensor) -> torch.Tensor:
        """Compute log odds of lesion from the lung's lesion share, float (N,)."""
        rise = torch.log((share + _NO_SHARE) / _USUAL_SHARE)
        return nn.functional.softplus(self.slope.float()) * rise + self.offset.float()


class LesionNetwork(nn.Module):
    """VGG-19-BN's maps, the decoder of lung and lesion, and the evidence drawn from them.

    `forward`: float (N, 1, 192, 256), the picture inside the lung box with its tone set -> logits of lung and lesion
    (N, 2, 48, 64), log odds of lesion (N,), log odds of COVID by appearance (N,); the last two only train the trunk.
    """

    probed_channels: int
    """Channels of the last map, which the appearance probe reads."""

    def __init__(self) -> None:
        super().__init__()
        layers, _ = empty_vgg("vgg19_bn")
        activations = activations_of(layers)
        places = [activations[name] for name in ACTIVATIONS]
        self.normalise = Normalise()
        self.features = Features(initialise_weights(layers[: places[-1] + 1]), places)
        channels = [cast(nn.BatchNorm2d, self.features[place - 1]).num_features for place in places]
        self.decoder = LesionDecoder([channels[0], channels[1], channels[3]])
        self.appearance = Appearance([channels[1], channels[3]])
        self.probed_channels = channels[2]
        self.evidence = Evidence()

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps, _ = pyramid_and_probed(self.features(self.normalise(255 * picture)))
        cells = self.decoder(maps)
        # no gradient: labels train the appearance of a lesion; only masks train its place
        lung = torch.sigmoid(cells[:, :1]).detach()
        lesion = torch.sigmoid(cells[:, 1:]).detach() * lung
        share = lesion.sum((1, 2, 3)) / (lung.sum((1, 2, 3)) + 1.0)
        return cells, self.evidence(share), self.appearance(maps[1:], lung, lesion)


def log_probability(lesion_odds: torch.Tensor, appearance_odds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute log P and log (1 - P) of P = sigmoid(lesion odds) x sigmoid(appearance odds).

    P(COVID) is P(lesion) x P(COVID | appearance): a clear lung stays NonCOVID whatever it looks like.
    """
    log_p = nn.functional.logsigmoid(lesion_odds) + nn.functional.logsigmoid(appearance_odds)
    return log_p, torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))


def surest_lesion(lesion: torch.Tensor) -> torch.Tensor:
    """Compute the log odds of the surest lesion cell from its map inside the lungs: float32 (N, 1, h, w) -> (N,)."""
    return torch.logit(lesion.amax((1, 2, 3)).clamp(1e-30, 1 - 1e-6))
