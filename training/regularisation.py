"""What keeps fine-tuning from learning a few hundred slices by heart; each is off by default."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from training.config import Recipe
from training.data import LABELS


class StartingPoint:
    """The weights that fine-tuning starts from, and the pull back to them: L2-SP, Li et al. 2018, arXiv 1802.01483.

    The pull is decoupled from the gradient, as AdamW decouples its decay (Loshchilov & Hutter 2019, arXiv 1711.05101),
    and solved for the weight after the step, so that it can't overshoot however strong it is.
    """

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self._optimiser = optimiser
        self._start = {p: p.detach().clone() for group in self._pulled() for p in group["params"]}

    @torch.no_grad()
    def pull(self) -> None:
        """Take each weight w to (w + r a w0) / (1 + r a), for its learning rate r and its group's strength a."""
        for group in self._pulled():
            strength = group["lr"] * group["l2_sp"]
            for parameter in group["params"]:
                parameter.lerp_(self._start[parameter], strength / (1 + strength))

    def _pulled(self) -> list[dict[str, Any]]:
        # asked for anew each time, because a resume replaces the optimiser's groups
        return [group for group in self._optimiser.param_groups if group.get("l2_sp")]


def drop_channels(maps: Sequence[torch.Tensor], probability: float) -> list[torch.Tensor]:
    """Blank whole channels of each float (N, C, h, w) map and scale the others up; only for training.

    Tompson et al. 2015, arXiv 1411.4280: neighbours on a map say much the same, so that dropping single values does
    little.
    """
    return [nn.functional.dropout2d(each, probability) for each in maps] if probability else list(maps)


def mix(images: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each slice of a shuffled batch with the one before it, by mixup or CutMix; both on, one is drawn a batch.

    Mixup: Zhang et al. 2018, arXiv 1710.09412. CutMix: Yun et al. 2019, arXiv 1905.04899.

    Args:
        images: uint8 (N, 1, S, S).
        labels: int64 (N,).
        recipe: says how strongly; with both off the batch is answered as it is.

    Returns:
        uint8 (N, 1, S, S), and what cross-entropy takes: the labels, or float32 (N, 2) shares of both classes.
    """
    alphas = ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
    kinds = [kind(alpha=alpha, num_classes=len(LABELS)) for kind, alpha in alphas if alpha]
    if not kinds:
        return images, labels
    mixed, shares = v2.RandomChoice(kinds)(images.float(), labels)
    return mixed.round().to(torch.uint8), shares


def average_of(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the network's weights and statistics, which starts where the network is.

    Averaged weights lie in the middle of a wide minimum: Izmailov et al. 2018, arXiv 1803.05407.
    """
    towards = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=towards, use_buffers=True)
    average.update_parameters(network)  # the first update copies
    return average
