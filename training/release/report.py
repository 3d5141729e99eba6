"""metrics.json: what a run did and what came out of it. models/README.md documents the schema."""

from dataclasses import asdict
from typing import Literal

import torch
from pydantic import JsonValue

from service.model.card import ManifestFile, SplitFingerprint
from training.evaluation.calibration import Calibration
from training.evaluation.heatmap_check import OcclusionCheck
from training.evaluation.out_of_distribution import Gate
from training.evaluation.scores import Figures
from training.evaluation.shortcut_audit import Audit
from training.evaluation.thresholds import OperatingPoint, Threshold
from training.recipe import ThresholdRule
from training.run.record import EpochRecord, Record


class ModelName(Record):
    """Which model this is."""

    name: str
    version: str
    architecture: str
    weights: str


class FileAgreement(Record):
    """One model file, loaded as the service loads it on a CPU, against the network that the figures were taken from.

    Attributes:
        largest_difference: of a probability, on test.
        auc, auc_change: on test.
        decisions_equal, verdicts_equal: share of test slices with the same label, and the same side of the
            out-of-distribution threshold.
    """

    largest_difference: float
    auc: float
    auc_change: float
    decisions_equal: float
    verdicts_equal: float


class Agreement(Record):
    """How little the export changes.

    Attributes:
        rounding: largest absolute difference of test probabilities between the training network in fp32 and the one
            that the figures were taken from: batch norms folded, weights rounded to fp16.
        files: each model file by its name.
    """

    rounding: float
    files: dict[str, FileAgreement]


class Times(Record):
    """Wall seconds of each part, over all resumed processes."""

    probe: float
    epochs: float
    evaluation_and_export: float


class Report(Record):
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
    operating_points: dict[ThresholdRule, OperatingPoint]
    calibration: dict[str, Calibration]
    audit: Audit
    heatmap: OcclusionCheck
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
