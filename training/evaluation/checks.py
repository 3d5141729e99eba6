"""Refusals by the checks of a picture: of chest slices, which should be answered, and of other pictures."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch

from service.imaging.decode import to_input
from service.model.card import CheckName
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.data.generated_images import generated_images
from training.evaluation.answers import CHECKS
from training.network.lesion_reader import LesionReader
from training.run.machine import Machine
from training.run.progress import progress
from training.run.record import Record

CHECK_THRESHOLDS: Final[dict[CheckName, float]] = {"no_lungs": 0.1, "wrong_window": 0.85, "several_panels": 0.5}
CHECKS_RULE: Final = (
    "no_lungs: fixed at 0.1, many times what 99 % of the training slices have; several_panels: fixed at 0.5, the "
    "network's own decision; wrong_window: fixed at 0.85, the share of the lungs that is one black or one white, which "
    "no slice in a lung window reaches"
)


class CheckShares(Record):
    """Share of a set of pictures that is refused, in all and by reason."""

    count: int
    refused: float
    reasons: dict[CheckName, float]


class Checks(Record):
    """Thresholds of the checks that refuse a picture, and what they refuse.

    Attributes:
        thresholds: by check; a picture is refused above it.
        slices: chest slices by source, which should be answered.
        others: other pictures by kind, which should be refused.
    """

    thresholds: dict[CheckName, float]
    rule: str
    slices: dict[str, CheckShares]
    others: dict[str, CheckShares]


def measure_checks(
    reader: LesionReader,
    slices: Sequence[CtSlice],
    others: Mapping[str, Sequence[CtSlice]],
    machine: Machine,
    seed: int,
) -> Checks:
    """Measure what is refused of chest slices, at most 200 a source, and of other pictures and generated ones."""
    generator = np.random.default_rng(seed)
    sources = sorted({each.source for each in slices})
    sampled = {name: _sample([each for each in slices if each.source == name], generator) for name in sources}
    generated = {
        kind: [CtSlice(kind, str(i), str(i), "other", to_input(each, SLICE_SIZE)[0]) for i, each in enumerate(members)]
        for kind, members in generated_images(seed).items()
    }
    return Checks(
        thresholds=CHECK_THRESHOLDS,
        rule=CHECKS_RULE,
        slices={name: _shares(reader, own, machine, name) for name, own in sampled.items()},
        others={name: _shares(reader, own, machine, name) for name, own in {**others, **generated}.items()},
    )


def _shares(reader: LesionReader, slices: Sequence[CtSlice], machine: Machine, name: str) -> CheckShares:
    """Run the checks alone, which need the lung finder but not the large network."""
    rows = []
    with torch.inference_mode():
        for start in progress(range(0, len(slices), 32), f"checking {name}", "batch"):
            greys = np.stack([each.grey for each in slices[start : start + 32]])
            _, _, lung, kind, flat = reader.look(torch.from_numpy(greys)[:, None].to(machine.device))
            scores = reader.check(lung, kind, flat)
            rows.append(torch.stack([scores[check] for check in CHECKS], dim=1).cpu().numpy())
    fired = np.concatenate(rows) > np.array([CHECK_THRESHOLDS[check] for check in CHECKS])
    return CheckShares(
        count=len(slices),
        refused=float(fired.any(1).mean()),
        reasons={check: float(fired[:, i].mean()) for i, check in enumerate(CHECKS)},
    )


def _sample(slices: Sequence[CtSlice], generator: np.random.Generator, most: int = 200) -> list[CtSlice]:
    chosen = generator.permutation(len(slices))[:most]
    return [slices[int(i)] for i in sorted(chosen)]
