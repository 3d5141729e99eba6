"""metrics.json of the recipe `lesion`. models/README.md documents the schema."""

from pydantic import Field

from service.model.card import Interval, ManifestFile
from training.evaluation.left_out_scores import LeftOutJudgement
from training.evaluation.official_test import AlteredScores
from training.evaluation.refusals import Refusals
from training.evaluation.scores import ScoreName, Scores
from training.models.run_record import RunRecord
from training.run.record import Record


class LesionFileAgreement(Record):
    """A model file, loaded like in the service on a CPU, compared with the evaluated network on test.

    Attributes:
        largest_difference: of a probability.
        auc: of the file.
        decisions_equal: share of slices with the same label.
        figures: of the file, all of them, with intervals.
    """

    largest_difference: float
    auc: float
    decisions_equal: float
    figures: dict[ScoreName, Interval] = Field(default_factory=dict)


class ExportedFiles(Record):
    """The model files of a version, written but not yet checked."""

    version: str
    files: tuple[ManifestFile, ...]


class LesionRunRecord(RunRecord):
    """The content of metrics.json.

    Attributes:
        learned: whether the AUC on any left-out source lies above 0.5 with 95 % confidence.
        judgement: calibration, thresholds and scores from sources that were left out of training.
        splits: official test of the shipped network: `test` with official labels, `test_corrected` with known label
            errors corrected, `test_without_notes` without the slices concerned, `test_new_papers` without slices that
            share a paper or a patient with a training slice.
        test_calibration_error: with official labels, over ten equal bins.
        altered: of official test, by alteration.
        checks: refusals.
        agreement: by model file.
        probability_shares: share of test probabilities at or below 0.1, 0.2, ... 1.0.
        lung_involvement_shares: share of test slices with a lung involvement at or below each bound.
        wall_time_seconds: of each network's training, in all processes that continued it, and of evaluation and export
            in the last process.
    """

    judgement: LeftOutJudgement
    splits: dict[str, Scores]
    test_calibration_error: Interval
    altered: dict[str, AlteredScores]
    checks: Refusals
    agreement: dict[str, LesionFileAgreement]
    lung_involvement_shares: dict[float, float] = Field(default_factory=dict)
