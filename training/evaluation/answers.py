"""Answers of a model file's network to slices, as arrays: everything that is measured is a function of these."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.card import CheckName
from training.data.ct_slices import CtSlice
from training.network.lesion_reader import LesionReader
from training.network.lung_finder import shrink
from training.run.atomic_write import write_atomically
from training.run.machine import Machine
from training.run.progress import progress
from training.run.run_folder import restoring

CHECKS: Final[tuple[CheckName, ...]] = get_args(CheckName)
"""Reasons to refuse a picture; each is an output of the network."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of a network to N slices.

    Attributes:
        lesion_probability: float32 (N,), that there is a lesion.
        covid_given_lesion: float32 (N,), that it is COVID-19 rather than another disease.
        involvement: float32 (N, 3), lesion area over lung area: both lungs, left, right.
        heatmap, lungs: float16 (N, 80, 80).
        found_lungs: float16 (N, 64, 64), lungs as the finder sees them.
        checks: float32 (N, 3), in the order of CHECKS.
    """

    lesion_probability: NDArray[np.float32]
    covid_given_lesion: NDArray[np.float32]
    involvement: NDArray[np.float32]
    heatmap: NDArray[np.float16]
    lungs: NDArray[np.float16]
    checks: NDArray[np.float32]
    found_lungs: NDArray[np.float16]

    @property
    def probability(self) -> NDArray[np.float32]:
        """Probability of COVID, the product of both answers: float32 (N,)."""
        return self.lesion_probability * self.covid_given_lesion


def resumed_answers(
    path: Path, reader: LesionReader, slices: Sequence[CtSlice], machine: Machine, title: str
) -> Answers:
    """Read the answers of an interrupted run, or ask the network and write them.

    Raises:
        TrainingError: the file is damaged, or of other slices.
    """
    names = np.array([f"{each.source}/{each.name}" for each in slices])
    if path.is_file():
        with restoring(path), np.load(path) as stored:
            if not np.array_equal(stored["names"], names):
                raise ValueError("it has the answers to other slices")
            return Answers(**{each.name: stored[each.name] for each in fields(Answers)})
    answers = answer(reader, slices, machine, title)
    columns = {each.name: getattr(answers, each.name) for each in fields(Answers)}
    write_atomically(path, lambda file: np.savez_compressed(file, names=names, **columns))
    return answers


def answer(
    reader: LesionReader, slices: Sequence[CtSlice], machine: Machine, title: str, batch_size: int = 8
) -> Answers:
    """Ask a network about slices, under the machine's autocast."""
    rows: list[list[NDArray[np.float32]]] = []
    with torch.inference_mode(), machine.autocast():
        for start in progress(range(0, len(slices), batch_size), title, "batch"):
            greys = np.stack([each.grey for each in slices[start : start + batch_size]])
            pictures = torch.from_numpy(greys)[:, None].to(machine.device)
            outputs = reader(pictures)
            checks = torch.stack([outputs[name] for name in CHECKS], dim=1)
            found = torch.sigmoid(reader.finder(shrink(pictures.float() / 255))[0])[:, 0]
            kept = [
                outputs[name]
                for name in ("lesion_probability", "covid_given_lesion", "lung_involvement", "heatmap", "lungs")
            ]
            rows.append([each.float().cpu().numpy() for each in (*kept, checks, found)])
    columns = [np.concatenate(each) for each in zip(*rows, strict=True)]
    return Answers(
        lesion_probability=columns[0],
        covid_given_lesion=columns[1],
        involvement=columns[2],
        heatmap=columns[3].astype(np.float16),
        lungs=columns[4].astype(np.float16),
        checks=columns[5],
        found_lungs=columns[6].astype(np.float16),
    )
