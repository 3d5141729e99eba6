"""VGG's convolutions with random weights, as a file in torchvision's layout."""

from training.network.weights import write_random_weights

__all__ = ["write_random_weights"]
