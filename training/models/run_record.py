"""The part of metrics.json that the runs of both recipes share."""

from pathlib import Path
from typing import Final, Literal, TypeVar

from service.model.card import MANIFEST_NAME, ManifestFile
from training.run.provenance import Provenance
from training.run.record import Record
from training.run.stages import read_record

NOT_LEARNED: Final = "This network learned nothing: {reason}. Its predictions mean nothing."


class ModelName(Record):
    """Name of the model and source of its pretrained weights."""

    name: str
    version: str
    architecture: str
    weights: str


class RunRecord(Provenance):
    """The content of metrics.json. `service.model.card.Manifest` is the part that the service reads.

    Attributes:
        files: none if the network learned nothing, unless `--export-anyway` was passed.
        learned: whether the network is better than chance.
        probability_shares: share of test probabilities at or below 0.1, 0.2, ... 1.0.
        wall_time_seconds: by part of the run, including interrupted processes.
    """

    schema_version: Literal[2] = 2
    files: tuple[ManifestFile, ...]
    model: ModelName
    positive_label: str
    learned: bool = True
    probability_shares: tuple[float, ...]
    wall_time_seconds: dict[str, float]
    peak_memory_bytes: int


RunRecordT = TypeVar("RunRecordT", bound=RunRecord)


def read_finished(
    models_folder: Path, kind: type[RunRecordT], version: str, *, export_anyway: bool
) -> RunRecordT | None:
    """Read the record of a finished run; None if the run has to continue, or is of another version."""
    record = read_record(models_folder / MANIFEST_NAME, kind)
    if record is None or record.model.version != version or (export_anyway and not record.files):
        return None
    return record
