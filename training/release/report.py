"""metrics.json of the recipe `report`: everything that one run did and found."""

from typing import Literal

from service.model.card import ManifestFile
from training.evaluation.report_scores import Evaluation
from training.run.record import EpochRecord, Provenance, Record


class ModelName(Record):
    """Name of the model and source of its pretrained weights."""

    name: str
    version: str
    architecture: str
    weights: str


class Report(Evaluation, Provenance):
    """The content of metrics.json. `service.model.card.Manifest` is the part that the service reads.

    Attributes:
        files: the model file; none if the network learned nothing.
        export_difference: largest absolute difference of a test probability between the model file, loaded like the
            service loads it on a CPU, and the evaluated network.
        history: one row per epoch, epoch 0 first.
        kept_epoch: epoch that the weights are from.
        wall_time_seconds: of training and of everything after it, including interrupted processes.
    """

    schema_version: Literal[2] = 2
    files: tuple[ManifestFile, ...]
    model: ModelName
    export_difference: float | None
    history: tuple[EpochRecord, ...]
    kept_epoch: int
    wall_time_seconds: dict[str, float]
    peak_memory_bytes: int
