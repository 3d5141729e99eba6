"""Predictions of a network for slices, as arrays. Every score is a function of these."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice
from training.network.lesion_reader import LesionReader
from training.network.lung_finder import shrink
from training.run.machine import Machine
from training.run.progress import progress
from training.run.stages import resumed_arrays

_BATCH: Final = 8

_FORMATS: Final = dict.fromkeys(("heatmap", "lungs", "found_lungs"), np.float16)
"""Formats of the maps, which need most of the memory; all else is float32."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of a network for N slices.

    Attributes:
        lesion_probability: float32 (N,), that there is a lesion.
        covid_given_lesion: float32 (N,), that it is COVID-19 rather than another disease.
        involvement: float32 (N, 3), lesion area over lung area: both lungs, left, right.
        heatmap, lungs: float16 (N, 80, 80).
        found_lungs: float16 (N, 64, 64), lungs by the lung finder.
    """

    lesion_probability: NDArray[np.float32]
    covid_given_lesion: NDArray[np.float32]
    involvement: NDArray[np.float32]
    heatmap: NDArray[np.float16]
    lungs: NDArray[np.float16]
    found_lungs: NDArray[np.float16]

    @property
    def probability(self) -> NDArray[np.float32]:
        """Probability of COVID, the product of both: float32 (N,)."""
        return self.lesion_probability * self.covid_given_lesion


def resumed_predictions(
    path: Path, reader: LesionReader, slices: Sequence[CtSlice], machine: Machine, title: str
) -> Predictions:
    """Read the predictions of an interrupted run, or run the network and write them."""
    return resumed_arrays(path, Predictions, lambda: predict(reader, slices, machine, title))


def predict(reader: LesionReader, slices: Sequence[CtSlice], machine: Machine, title: str) -> Predictions:
    """Run a network on slices, under the machine's autocast."""
    columns: dict[str, list[NDArray[Any]]] = {field.name: [] for field in fields(Predictions)}
    with torch.inference_mode(), machine.autocast():
        for start in progress(range(0, len(slices), _BATCH), title, "batch"):
            greys = np.stack([slice_.grey for slice_ in slices[start : start + _BATCH]])
            pictures = torch.from_numpy(greys)[:, None].to(machine.device)
            outputs = reader(pictures)
            outputs["involvement"] = outputs["lung_involvement"]
            outputs["found_lungs"] = torch.sigmoid(reader.finder(shrink(pictures.float() / 255))[0])[:, 0]
            for name, parts in columns.items():
                parts.append(outputs[name].float().cpu().numpy().astype(_FORMATS.get(name, np.float32)))
    return Predictions(**{name: np.concatenate(parts) for name, parts in columns.items()})
