"""Losses of the lesion network's training."""

from collections.abc import Mapping

import torch
from torch import nn

from training.learning.lesion_samples import Batch
from training.network.lesion_network import log_probability
from training.run.processes import current


def lesion_losses(outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """Cross-entropy of lesion, lung and label; overlap of lesions (soft Dice, Milletari et al. 2016, 1606.04797).

    Averages over the batch of all processes, as far as this process has it: the losses of all add up to the whole.
    """
    cells, lesion_odds, appearance_odds = outputs
    lung, lesion = cells[:, :1], cells[:, 1:]
    entropy = nn.functional.binary_cross_entropy_with_logits
    twice = torch.tensor(2.0, device=lesion.device)  # a missed lesion cell counts twice
    of_lesion = entropy(lesion, batch.lesion, reduction="none", pos_weight=twice).mean((1, 2, 3))
    p = lesion.sigmoid()
    both, total = (p * batch.lesion).sum((1, 2, 3)), (p + batch.lesion).sum((1, 2, 3))
    of_overlap = 1 - (2 * both + 20) / (total + 20)  # smooth where there are few lesion cells, or none
    of_lung = entropy(lung, batch.lung, reduction="none").mean((1, 2, 3))
    log_p, log_not = log_probability(lesion_odds, appearance_odds)
    of_label = -(batch.label * log_p + (1 - batch.label) * log_not)
    weights = (batch.lesion_weight, batch.lung_weight, batch.label_weight)
    totals = current().sum(torch.stack([weight.sum() for weight in weights])).clamp_min(1.0)
    lesion_share, lung_share, label_share = (weight / whole for weight, whole in zip(weights, totals, strict=True))
    return {
        "lesion": (of_lesion * lesion_share).sum(),
        "overlap": (of_overlap * lesion_share).sum(),
        "lung": (of_lung * lung_share).sum(),
        "label": (of_label * label_share).sum(),
    }


def total_loss(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Add up the losses into the one that the network is trained on."""
    return 3 * losses["lesion"] + 0.7 * losses["overlap"] + losses["lung"] + 0.7 * losses["label"]
