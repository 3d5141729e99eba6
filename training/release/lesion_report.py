"""metrics.json of the recipe `lesion`: everything that a run did and found. models/README.md documents the schema."""

from typing import Literal

from pydantic import Field

from service.model.card import Interval, ManifestFile
from training.evaluation.checks import Checks
from training.evaluation.heatmap_check import CoveringTest
from training.evaluation.left_out_scores import LeftOutJudgement
from training.evaluation.official_test import AlteredScores, FormatScores
from training.evaluation.scores import ScoreName, Scores
from training.release.report import ModelName
from training.run.record import Provenance, Record


class LesionFileAgreement(Record):
    """A model file, loaded like the service loads it on a CPU, compared with the evaluated network on test.

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


class LesionReport(Provenance):
    """The content of metrics.json.

    Attributes:
        files: none if the network learned nothing, unless they were asked for.
        learned: whether the AUC on any left-out source lies above 0.5 with 95 % confidence.
        judgement: calibration, thresholds and scores from sources that were left out of training.
        splits: official test of the shipped network: `test` with official labels, `test_corrected` with known label
            errors corrected, `test_without_notes` without the slices concerned, `test_new_papers` without slices that
            share a paper or a patient with a training slice.
        test_calibration_error: with official labels, over ten equal bins.
        formats: official test by format and colour mode of the files.
        altered: of official test, by alteration.
        covering: what covering the strongest cells of the map does to the answer, on official test.
        checks: refusals.
        agreement: by model file.
        probability_shares: share of test probabilities at or below 0.1, 0.2, ... 1.0.
        lung_involvement_shares: share of test slices with a lung involvement at or below each bound.
        wall_time_seconds: of both networks' training, in all processes that continued it, and of evaluation and export
            in the last process.
    """

    schema_version: Literal[2] = 2
    files: tuple[ManifestFile, ...]
    model: ModelName
    positive_label: str
    learned: bool = True
    judgement: LeftOutJudgement
    splits: dict[str, Scores]
    test_calibration_error: Interval
    formats: dict[str, FormatScores] = Field(default_factory=dict)
    altered: dict[str, AlteredScores]
    covering: CoveringTest | None = None
    checks: Checks
    agreement: dict[str, LesionFileAgreement]
    probability_shares: tuple[float, ...]
    lung_involvement_shares: dict[float, float] = Field(default_factory=dict)
    wall_time_seconds: dict[str, float]
    peak_memory_bytes: int
