"""The network that is trained: VGG's convolutions and one head."""

from typing import cast

import torch
from torch import nn

from training.network.heads import ClassifierHead, CovarianceHead, PooledHead
from training.network.vgg import Features, Normalise, activations_of, channels_of, empty_vgg, initialise_weights
from training.recipe import NetworkSettings


class SliceNetwork(nn.Module):
    """uint8 (N, 1, S, S) -> logits (N, 2) of NonCOVID and COVID."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        features, classifier = empty_vgg(settings.architecture)
        self.normalise = Normalise(settings.magnify)
        activations = activations_of(features)
        places = [activations[name] for name in settings.head_layers]
        # no layer after the last one that the head reads, so never the last max pooling
        self.features = Features(initialise_weights(features[: places[-1] + 1]), places)
        self.head: PooledHead | CovarianceHead | ClassifierHead
        if settings.head == "pooled":
            self.head = PooledHead(channels_of(self.features))
        elif settings.head == "covariance":
            self.head = CovarianceHead(channels_of(self.features), settings.components)
        else:
            self.head = ClassifierHead(initialise_weights(classifier))

    def maps(self, slices: torch.Tensor) -> list[torch.Tensor]:
        """Return the activations that the head reads, finest first: float (N, C, h, w) each."""
        return cast(list[torch.Tensor], self.features(self.normalise(slices)))

    def logits(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Apply the head, without autocast: its 8 or 11 bits are too few for covariances."""
        if isinstance(self.head, ClassifierHead):  # 120 million weights, for which autocast pays
            return cast(torch.Tensor, self.head(maps))
        with torch.autocast(maps[0].device.type, enabled=False):
            return cast(torch.Tensor, self.head(maps))

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        return self.logits(self.maps(slices))
