"""The answers on which temperature and threshold are chosen."""

from dataclasses import dataclass
from typing import Literal

import torch

from training.data.covid_ct import Split


@dataclass(frozen=True, slots=True)
class Reference:
    """Slices that the network was not fitted to, and answers to them.

    Attributes:
        name: `val`, or `out-of-fold` if the network was fitted to validation too.
        split: the slices.
        logits: float32 (N, 2), of the network itself or, out of fold, of probes that were fitted without the slice's
            patient or paper. The directions of a covariance head need no labels and are those of all slices.
    """

    name: Literal["val", "out-of-fold"]
    split: Split
    logits: torch.Tensor
