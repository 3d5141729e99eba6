"""Model files of the recipe `lesion`: fp16 and int8, each with its card and compared with the evaluated network."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from service.model.card import FilePrecision, Interval, ManifestFile, ModelCard
from service.model.file import load_on_cpu
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.data.lesion_data import LesionData
from training.evaluation.left_out_scores import LeftOutJudgement
from training.evaluation.predictions import Predictions
from training.evaluation.refusals import CHECK_THRESHOLDS, CHECKS_RULE
from training.evaluation.scores import ScoreName, score
from training.models.export import common_fields, export
from training.models.file_scores import predict_file
from training.models.run_record import NOT_LEARNED
from training.network.lesion_reader import LesionReader
from training.release.lesion_record import LesionFileAgreement
from training.release.quantisation import quantise
from training.run.provenance import Provenance

ARCHITECTURE: Final = (
    "vgg19_bn (lung finder; decoder of lung and lesion on activations 3_4, 4_4, 5_4 inside the lung box; probability "
    "from the surest lesion and the lesions' appearance on 5_2 inside the lungs)"
)
LIMITS: Final = (
    "Trained on slices of public sources, many cut out of papers. The classes of some sources come from "
    "different scanners. It confuses COVID-19 with other lung disease more often than with healthy lungs, and misses "
    "mild disease without visible lesions. Judged on left-out sources; expect lower accuracy on yours. No "
    "clinical data."
)
NOT_BETTER_THAN_CHANCE: Final = "its AUC is not above 0.5 with 95 % confidence on any left-out source"
_CALIBRATION_SLICES: Final = 96


def export_files(
    reader: LesionReader,
    card: Callable[[LesionReader, FilePrecision], ModelCard],
    slices: Sequence[CtSlice],
    folder: Path,
) -> tuple[ManifestFile, ...]:
    """Write the int8 and the fp16 file; the reader is in fp16 afterwards.

    Args:
        reader: on the CPU, in fp32, weights rounded to fp16.
        card: makes the card of a network and its precision.
        slices: training slices; a sample of them sets the scales of int8.
        folder: of the model files.
    """
    stride = max(1, len(slices) // _CALIBRATION_SLICES)
    quantised = quantise(reader, [torch.from_numpy(slice_.grey)[None, None] for slice_ in slices[::stride]])
    int8 = export(quantised, card(quantised, "int8"), folder)
    return export(reader, card(reader, "fp16"), folder), int8


def compare_file(
    folder: Path,
    file: ManifestFile,
    evaluated: Predictions,
    data: LesionData,
    threshold: float,
    seed: int,
) -> LesionFileAgreement:
    """Score a written file on test, and compare its predictions with those of the evaluated network."""
    images = torch.from_numpy(np.stack([slice_.grey for slice_ in data.test]))[:, None]
    outputs = predict_file(load_on_cpu(folder, file), images, f"checking {file.name}", batch=1)
    probability = outputs["probability"]
    labels = np.array([slice_.label for slice_ in data.test])
    figures = score(probability, labels, threshold, seed, data.test_patients).figures
    return LesionFileAgreement(
        largest_difference=float(np.abs(probability - evaluated.probability).max()),
        auc=figures["auc"].value,
        decisions_equal=float(((probability >= threshold) == (evaluated.probability >= threshold)).mean()),
        figures=figures,
    )


def make_card(
    version: str,
    judgement: LeftOutJudgement,
    test_metrics: Mapping[ScoreName, Interval],
    provenance: Provenance,
    reader: LesionReader,
    precision: FilePrecision,
) -> ModelCard:
    """Make the card of a model file from its run, its network and its precision."""
    points = judgement.operating_points
    return ModelCard(
        **common_fields(reader, version, SLICE_SIZE, precision, provenance),
        architecture=ARCHITECTURE,
        threshold=judgement.threshold,
        threshold_rule=points["differential"].rule_with_range,
        operating_points={name: point.threshold for name, point in points.items()},
        lesion_thresholds={name: point.lesion_threshold for name, point in points.items()},
        purposes={name: point.purpose for name, point in points.items()},
        checks=CHECK_THRESHOLDS,
        checks_rule=CHECKS_RULE,
        calibrations=judgement.calibrations,
        test_metrics={str(name): figure for name, figure in test_metrics.items()},
        left_out_metrics={
            source: {str(name): figure for name, figure in scores.figures.items()}
            for source, scores in judgement.sources.items()
        },
        limits=LIMITS if judgement.learned else f"{NOT_LEARNED.format(reason=NOT_BETTER_THAN_CHANCE)} {LIMITS}",
    )
