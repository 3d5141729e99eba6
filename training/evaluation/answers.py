"""Answers of a model file's network to slices, as arrays: everything that is measured is a function of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice
from training.run.progress import progress

Reader = Callable[[torch.Tensor], dict[str, torch.Tensor]]
"""uint8 (N, 1, S, S) -> float32 tensors by name; see training.network.lesion_reader."""

CHECKS = ("no_lungs", "wrong_window", "several_panels")
"""Reasons to refuse a picture, by the names of the network's outputs."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network answers to N slices.

    Attributes:
        probability: float32 (N,), of COVID.
        involvement: float32 (N, 3), lesion area over lung area: both lungs, left, right.
        heatmap, lungs: float16 (N, 80, 80).
        checks: float32 (N, 3), in the order of CHECKS.
    """

    probability: NDArray[np.float32]
    involvement: NDArray[np.float32]
    heatmap: NDArray[np.float16]
    lungs: NDArray[np.float16]
    checks: NDArray[np.float32]

    @property
    def log_odds(self) -> NDArray[np.float64]:
        """float64 (N,), of the probability."""
        p = self.probability.astype(np.float64).clip(1e-9, 1 - 1e-7)
        return np.log(p) - np.log1p(-p)


def answer(
    reader: Reader, slices: Sequence[CtSlice], device: torch.device, title: str, batch_size: int = 8
) -> Answers:
    """Ask a network about slices."""
    rows: list[list[NDArray[np.float32]]] = []
    with torch.inference_mode():
        for start in progress(range(0, len(slices), batch_size), title, "batch"):
            greys = np.stack([each.grey for each in slices[start : start + batch_size]])
            outputs = reader(torch.from_numpy(greys)[:, None].to(device))
            checks = torch.stack([outputs[name] for name in CHECKS], dim=1)
            kept = [outputs[name] for name in ("probability", "lung_involvement", "heatmap", "lungs")]
            rows.append([each.float().cpu().numpy() for each in (*kept, checks)])
    probability, involvement, heatmap, lungs, found = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Answers(probability, involvement, heatmap.astype(np.float16), lungs.astype(np.float16), found)
