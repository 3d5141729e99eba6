"""metrics.json: everything that a run did and found. models/README.md documents the schema."""

from typing import Literal

import torch

from service.model.card import ManifestFile
from training.evaluation.evaluate import Evaluation, Predictions
from training.evaluation.scores import auc
from training.run.record import EpochRecord, Provenance, Record


class ModelName(Record):
    """Name of the model and source of its pretrained weights."""

    name: str
    version: str
    architecture: str
    weights: str


class FileAgreement(Record):
    """A model file, loaded like the service loads it on a CPU, compared with the evaluated network on test.

    Attributes:
        largest_difference: of a probability.
        auc, auc_change: of the file, and its difference from the network's.
        decisions_equal: share of slices with the same label.
    """

    largest_difference: float
    auc: float
    auc_change: float
    decisions_equal: float


class Agreement(Record):
    """Effect of the export on the answers.

    Attributes:
        rounding: largest absolute difference of test probabilities between the training network in fp32 and the
            evaluated one, which has batch norms folded and weights rounded to fp16.
        files: agreement of each model file by its name.
    """

    rounding: float
    files: dict[str, FileAgreement]


class Times(Record):
    """Wall time of each part in seconds, including interrupted processes."""

    probe: float
    epochs: float
    evaluation_and_export: float


class Report(Evaluation, Provenance):
    """The content of metrics.json. `service.model.card.Manifest` is the part that the service reads."""

    schema_version: Literal[2] = 2
    files: tuple[ManifestFile, ...]
    model: ModelName
    agreement: Agreement
    history: tuple[EpochRecord, ...]
    kept_epoch: int
    wall_time_seconds: Times
    peak_memory_bytes: int


def compare_answers(
    file: Predictions, network: Predictions, labels: torch.Tensor, evaluation: Evaluation
) -> FileAgreement:
    """Compare the answers of a model file to test with those of the evaluated network."""
    called = [each.probabilities >= evaluation.threshold.value for each in (file, network)]
    own = auc(file.probabilities, labels)
    return FileAgreement(
        largest_difference=(file.probabilities - network.probabilities).abs().max().item(),
        auc=own,
        auc_change=own - auc(network.probabilities, labels),
        decisions_equal=(called[0] == called[1]).float().mean().item(),
    )
