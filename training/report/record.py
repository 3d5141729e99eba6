"""metrics.json of the recipe `report`."""

from training.release.run_record import RunRecord
from training.report.scores import Evaluation
from training.run.record import EpochRecord


class ReportRunRecord(Evaluation, RunRecord):
    """The content of metrics.json.

    Attributes:
        export_difference: largest absolute difference of a test probability between the model file, loaded like in the
            service on a CPU, and the evaluated network.
        history: one row per epoch, epoch 0 first.
        kept_epoch: epoch of the kept weights.
    """

    export_difference: float | None
    history: tuple[EpochRecord, ...]
    kept_epoch: int
