"""The network of the report: VGG with two outputs. It sees the whole slice and finds no lungs."""

from typing import cast

import torch
from torch import nn

from training.network.vgg import Features, Normalise, activations_of, empty_vgg, initialise_weights
from training.report_recipe import Architecture


class ClassifierHead(nn.Module):
    """VGG's three linear layers, the last one replaced by one with two outputs: logits (N, 2)."""

    def __init__(self, classifier: nn.Sequential) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7))
        hidden = cast(nn.Linear, classifier[-1]).in_features
        self.layers = nn.Sequential(*classifier[:-1], nn.Linear(hidden, 2))

    def forward(self, last: torch.Tensor) -> torch.Tensor:
        """Compute logits from the last activation, float (N, C, h, w)."""
        logits: torch.Tensor = self.layers(self.pool(last).flatten(1))
        return logits


class SliceNetwork(nn.Module):
    """uint8 (N, 1, S, S) -> logits (N, 2) of NonCOVID and COVID."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        features, classifier = empty_vgg(architecture)
        self.normalise = Normalise()
        last = max(activations_of(features).values())
        # the last max pooling is in the head, so that the heat map is twice as fine
        self.features = Features(initialise_weights(features[: last + 1]), [last])
        self.head = ClassifierHead(initialise_weights(classifier))

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.head(self.features(self.normalise(slices))[0]))
