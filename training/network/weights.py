"""Pretrained weights, in torchvision's layout."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from training.errors import TrainingError
from training.network.vgg import Features, empty_vgg, initialise_weights
from training.run.atomic_write import write_atomically
from training.run.provenance import hash_file

_TORCHVISION_WEIGHTS: Final = {
    "vgg19_bn": torchvision.models.VGG19_BN_Weights.IMAGENET1K_V1,
    "vgg16_bn": torchvision.models.VGG16_BN_Weights.IMAGENET1K_V1,
}


def check_weights(architecture: str, weights: Path | None) -> str:
    """Check before any work that pretrained weights are available, and return their hash.

    Returns:
        SHA-256 of the file; without a file, the name of torchvision's weights, whose download is checked by its hash.
    """
    state, source = _read_weights(architecture, weights)
    _whole_features(state, architecture, source)
    return hash_file(weights) if weights else str(_TORCHVISION_WEIGHTS[architecture])


def load_features(features: Features, architecture: str, weights: Path | None) -> tuple[dict[str, torch.Tensor], str]:
    """Fill VGG's first layers with ImageNet weights, those of a file or else torchvision's.

    Returns:
        The state dict in torchvision's layout, and its source, for the card.

    Raises:
        TrainingError: no such file, no internet connection, or weights of another architecture.
    """
    state, source = _read_weights(architecture, weights)
    features.load_state_dict(_whole_features(state, architecture, source)[: len(features)].state_dict())
    return state, source


def write_random_weights(path: Path, architecture: str = "vgg19_bn") -> Path:
    """Write random convolutions in torchvision's layout, for tests and demonstrations; returns `path`."""
    torch.manual_seed(0)
    state = initialise_weights(empty_vgg(architecture)[0]).state_dict()
    weights = {f"features.{name}": value for name, value in state.items()}
    write_atomically(path, lambda file: torch.save(weights, file))
    return path


def _whole_features(state: Mapping[str, torch.Tensor], architecture: str, source: str) -> nn.Sequential:
    """Build all convolutions of a network with its weights, and check that they are of this network."""
    convolutions = {k.removeprefix("features."): v.float() for k, v in state.items() if k.startswith("features.")}
    whole, _ = empty_vgg(architecture)
    try:
        whole.load_state_dict(convolutions, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(f"{source}: not the weights of {architecture}: {reason}") from error
    return whole


def _read_weights(architecture: str, weights: Path | None) -> tuple[dict[str, torch.Tensor], str]:
    """Read or download a state dict; return it with its source."""
    if weights is None:
        try:
            default = _TORCHVISION_WEIGHTS[architecture]
            return dict(default.get_state_dict(check_hash=True)), f"torchvision {default}"
        except (URLError, OSError) as error:
            raise TrainingError(
                f"torchvision's ImageNet weights of {architecture} can't be downloaded ({error}); offline, pass "
                f"--weights FILE, a state dict in torchvision's layout (its {architecture} checkpoint)"
            ) from error
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise TrainingError(f"{weights}: not a PyTorch state dict; pass torchvision's checkpoint") from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise TrainingError(f"{weights}: not a state dict of tensors; pass torchvision's checkpoint")
    return state, weights.name
