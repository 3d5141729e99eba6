"""Layers that fine-tuning changes, and layers that stay fixed."""

from torch import nn

from training.network.slice_network import SliceNetwork
from training.recipe import FineTuningSettings


def set_trainable(network: SliceNetwork, settings: FineTuningSettings) -> None:
    """Turn on gradients for the layers that learn, and turn them off for all others. The head always learns."""
    layers = list(network.features)
    poolings = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    # if the head reads nothing after block 3, there is no block 4 to train
    fourth = poolings[2] if len(poolings) > 2 else len(layers)
    first = {"all": 0, "last_blocks": fourth, "last_block": poolings[-1], "head": len(layers)}[settings.trainable]
    for i, layer in enumerate(layers):
        layer.requires_grad_(i >= first)


def set_training_mode(network: SliceNetwork, settings: FineTuningSettings) -> None:
    """Switch to training mode, except batch norms with fixed statistics, which stay in evaluation mode."""
    network.train()
    for layer in network.features:
        frozen = settings.freeze_batch_norm or not any(p.requires_grad for p in layer.parameters())
        if isinstance(layer, nn.BatchNorm2d) and frozen:
            layer.eval()
