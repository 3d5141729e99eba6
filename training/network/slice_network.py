"""The network that is trained: VGG's features and one head."""

from typing import cast

import torch
from torch import nn

from training.network.heads import ClassifierHead, CovarianceHead, PooledHead
from training.network.vgg import Features, Normalise, activations_of, channels_of, empty_vgg, materialise
from training.recipe import Recipe


class SliceNetwork(nn.Module):
    """uint8 (N, 1, S, S) -> logits (N, 2) of NonCOVID and COVID."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        features, classifier = empty_vgg(recipe)
        self.normalise = Normalise(recipe.magnify)
        activations = activations_of(features)
        places = [activations[name] for name in recipe.pooled_layers]
        # nothing after the last layer that is looked at, so never the last max pooling
        self.features = Features(materialise(features[: places[-1] + 1]), places)
        self.head: PooledHead | CovarianceHead | ClassifierHead
        if recipe.head == "pooled":
            self.head = PooledHead(channels_of(self.features))
        elif recipe.head == "covariance":
            self.head = CovarianceHead(channels_of(self.features), recipe.components)
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
