"""Layers that learn, and layers that stay as they are."""

from torch import nn

from training.network.slice_network import SliceNetwork
from training.recipe import Recipe


def set_trainable(network: SliceNetwork, recipe: Recipe) -> None:
    """Let gradients reach what the recipe trains, and nothing else."""
    layers = list(network.features)
    poolings = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    # a head that sees no further than block 3 leaves nothing of blocks 4 and 5
    fourth = poolings[2] if len(poolings) > 2 else len(layers)
    first = {"all": 0, "last_blocks": fourth, "last_block": poolings[-1], "head": len(layers)}[recipe.trainable]
    for i, layer in enumerate(layers):
        layer.requires_grad_(i >= first)


def set_training_mode(network: SliceNetwork, recipe: Recipe) -> None:
    """Training mode, with the batch norms that must not move their statistics left in evaluation mode."""
    network.train()
    for layer in network.features:
        frozen = recipe.freeze_batch_norm or not any(p.requires_grad for p in layer.parameters())
        if isinstance(layer, nn.BatchNorm2d) and frozen:
            layer.eval()
