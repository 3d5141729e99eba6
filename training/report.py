"""metrics.json: what a run did and what came out of it. models/README.md documents the schema."""

from dataclasses import asdict
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, JsonValue

from service.artifact import ManifestFile, SplitFingerprint
from training.engine import EpochRecord
from training.evaluation import Figures, Gate, Threshold


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelName(_Record):
    """Which model this is."""

    name: str
    version: str
    architecture: str
    weights: str


class Agreement(_Record):
    """Largest absolute differences of test probabilities.

    Attributes:
        rounding: the training network in fp32 against the one to export: batch norms folded, weights rounded to fp16.
        export: those rounded weights against the exported file, reloaded as the service loads it.
    """

    rounding: float
    export: float


class Times(_Record):
    """Wall seconds of each part, over all resumed processes."""

    probe: float
    epochs: float
    evaluation_and_export: float


class Report(_Record):
    """The whole of metrics.json; `service.artifact.Manifest` says what of it the service reads."""

    schema_version: Literal[1] = 1
    files: tuple[ManifestFile, ...]
    probability_shares: tuple[float, ...]
    model: ModelName
    positive_label: str
    threshold: Threshold
    temperature: float
    out_of_distribution: Gate
    splits: dict[str, Figures]
    test_at_half: Figures
    test_reencoded: Figures
    agreement: Agreement
    history: tuple[dict[str, JsonValue], ...]
    kept_epoch: int
    config: dict[str, JsonValue]
    data: dict[str, SplitFingerprint]
    git_commit: str
    versions: dict[str, str]
    machine: str
    wall_time_seconds: Times
    peak_memory_bytes: int


def probability_shares(probabilities: torch.Tensor) -> tuple[float, ...]:
    """Share of float (N,) probabilities at or below 0.1, 0.2, ... 1.0."""
    return tuple(round((probabilities <= tenth / 10).double().mean().item(), 4) for tenth in range(1, 11))


def history_rows(history: list[EpochRecord]) -> tuple[dict[str, JsonValue], ...]:
    """The history as JSON rows."""
    return tuple(asdict(record) for record in history)
