"""The network of the report: VGG with two outputs on the whole slice, without a lung finder."""

import copy
from pathlib import Path
from typing import cast

import torch
from torch import nn

from training.network.vgg import (
    Features,
    Normalise,
    activations_of,
    empty_vgg,
    fold_batch_norms,
    initialise_weights,
)
from training.network.weights import load_features
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


class Deployable(nn.Module):
    """The report's network as it is exported, from uint8 slices to the probability.

    `forward`: uint8 (N, 1, S, S) -> `probability` (N,) of COVID and `heatmap` (N, h, w), 0 to 1; both float32. The heat
    map is the mean of the last activations, divided by its largest value. It shows where the network is active, not
    why: three linear layers over all positions assign no exact share of the probability to a position.

    Args:
        network: in evaluation mode; it does not change.
    """

    def __init__(self, network: SliceNetwork) -> None:
        super().__init__()
        self.normalise = copy.deepcopy(network.normalise)
        self.features = fold_batch_norms(network.features)
        self.head = copy.deepcopy(network.head)

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        last = self.features(self.normalise(slices))[0]
        probability = torch.softmax(self.head(last).float(), dim=1)[:, 1]
        activity = last.float().mean(1)
        return {"probability": probability, "heatmap": activity / activity.amax((1, 2), keepdim=True).clamp_min(1e-12)}


def load_imagenet(network: SliceNetwork, architecture: str, weights: Path | None) -> str:
    """Load ImageNet weights into the convolutions, and into the classifier's hidden layers if the file has them.

    Returns:
        Source of the weights and the layers that it lacks, for the card.
    """
    state, source = load_features(network.features, architecture, weights)
    hidden = {k.removeprefix("classifier."): v for k, v in state.items() if k.startswith("classifier.")}
    if not hidden:
        return f"{source}; the classifier's hidden layers start at random because the file has none"
    wanted = {k: v.float() for k, v in hidden.items() if not k.startswith("6.")}
    network.head.layers.load_state_dict(wanted, strict=False)
    return source
