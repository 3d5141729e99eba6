"""The answers that temperature and threshold are chosen on."""

from dataclasses import dataclass
from typing import Literal

import torch

from training.data.covid_ct import Split


@dataclass(frozen=True, slots=True)
class Reference:
    """The answers that temperature and threshold are chosen on.

    Attributes:
        name: `val`, or `out-of-fold` where the network was fitted to validation too.
        split: the slices.
        logits: float32 (N, 2), of the network or, out of fold, of probes that were not fitted to the slice's patient or
            paper; a covariance head's directions, which need no labels, may be.
    """

    name: Literal["val", "out-of-fold"]
    split: Split
    logits: torch.Tensor
