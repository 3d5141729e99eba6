"""VGG with a sixteenth of its channels and a thin lung finder, so that a whole job runs in seconds. Run it for one.

python -m tests.support.networks.thin_vgg report ...
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import nn
from torchvision.models import vgg

from training.__main__ import main
from training.network.lung_finder import LungFinder
from training.network.weights import write_random_weights
from training.report_recipe import Architecture

_THINNER = 16
_HIDDEN = 64
_FINDER_WIDTHS = (8, 8, 16, 16)


def write_thin_weights(path: Path, architecture: Architecture = "vgg19_bn") -> Path:
    """Random weights of a thin network with its hidden layers, in torchvision's layout; returns `path`."""
    with thin_vgg():
        write_random_weights(path, architecture)
    layers = [(0, nn.Linear(512 // _THINNER * 49, _HIDDEN)), (3, nn.Linear(_HIDDEN, _HIDDEN))]
    hidden = {
        f"classifier.{place}.{name}": value for place, layer in layers for name, value in layer.state_dict().items()
    }
    torch.save(torch.load(path, weights_only=True) | hidden, path)
    return path


@contextmanager
def thin_vgg() -> Iterator[None]:
    """Let torchvision build thin networks by name, and make lung finders thin."""
    thin_finder = patch.object(LungFinder.__init__, "__defaults__", (_FINDER_WIDTHS,))
    with patch("torchvision.models.get_model", _get_model), thin_finder:
        yield


def _get_model(architecture: str, weights: None) -> SimpleNamespace:
    plan = vgg.cfgs[{"vgg16_bn": "D", "vgg19_bn": "E"}[architecture]]
    layers = vgg.make_layers([width if width == "M" else width // _THINNER for width in plan], batch_norm=True)
    first, second, last = (
        nn.Linear(512 // _THINNER * 49, _HIDDEN),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.Linear(_HIDDEN, 1000),
    )
    hidden = [first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout()]
    return SimpleNamespace(features=layers, classifier=nn.Sequential(*hidden, last))


if __name__ == "__main__":
    with thin_vgg():
        sys.exit(main(sys.argv[1:]))
