"""Model files of the recipe `lesion`: fp16 and int8, each with its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from service.model.card import (
    AnswerName,
    Calibration,
    CheckName,
    FilePrecision,
    Interval,
    ManifestFile,
    ModelCard,
    SelfCheck,
)
from service.model.file import synthetic_slice
from training.data.covid_ct import LABELS
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.evaluation.operating_points import OperatingPoint
from training.network.lesion_reader import LesionReader
from training.release.export import INTENDED_USE, NAME, SELF_CHECK_SEED, SELF_CHECK_TOLERANCE, export
from training.release.quantisation import quantise
from training.release.run_record import NOT_LEARNED
from training.run.record import Provenance

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


@dataclass(frozen=True, slots=True)
class CardContent:
    """Content that the cards of both files share.

    Attributes:
        version: of the model.
        learned: whether the network is better than chance on any left-out source.
        threshold, threshold_rule: of the default operating point.
        operating_points: by name.
        checks, checks_rule: thresholds of the refusals.
        calibrations: of each probability, inside the graph.
        test_metrics: of official test.
        left_out_metrics: by left-out source.
        provenance: recipe, data and code.
    """

    version: str
    learned: bool
    threshold: float
    threshold_rule: str
    operating_points: Mapping[str, OperatingPoint]
    checks: Mapping[CheckName, float]
    checks_rule: str
    calibrations: Mapping[AnswerName, Calibration]
    test_metrics: Mapping[str, Interval]
    left_out_metrics: Mapping[str, Mapping[str, Interval]]
    provenance: Provenance


def export_files(
    reader: LesionReader, content: CardContent, slices: Sequence[CtSlice], folder: Path
) -> list[ManifestFile]:
    """Write the int8 and the fp16 file; the reader is in fp16 afterwards.

    Args:
        reader: on the CPU, in fp32, weights rounded to fp16.
        content: of the cards.
        slices: training slices; a sample of them sets the scales of int8.
        folder: of the model files.
    """
    stride = max(1, len(slices) // _CALIBRATION_SLICES)
    greys = [torch.from_numpy(slice_.grey)[None, None] for slice_ in slices[::stride]]
    quantised = quantise(reader, greys)
    files = [export(quantised, _card(quantised, content, "int8"), folder)]
    files.append(export(reader, _card(reader, content, "fp16"), folder))
    return files[::-1]


def _card(reader: LesionReader, content: CardContent, precision: FilePrecision) -> ModelCard:
    return ModelCard(
        schema_version=2,
        name=NAME,
        version=content.version,
        architecture=ARCHITECTURE,
        input_size=SLICE_SIZE,
        resize="bilinear-antialias-stretch",
        labels=LABELS,
        positive_label=LABELS[1],
        threshold=content.threshold,
        threshold_rule=content.threshold_rule,
        operating_points={name: point.threshold for name, point in content.operating_points.items()},
        lesion_thresholds={name: point.lesion_threshold for name, point in content.operating_points.items()},
        purposes={name: point.purpose for name, point in content.operating_points.items()},
        checks=dict(content.checks),
        checks_rule=content.checks_rule,
        calibrations=dict(content.calibrations),
        precision=precision,
        self_check=SelfCheck(seed=SELF_CHECK_SEED, probability=_self_check(reader), tolerance=SELF_CHECK_TOLERANCE),
        training_config=content.provenance.config,
        data=content.provenance.data,
        git_commit=content.provenance.git_commit,
        libraries=content.provenance.versions,
        test_metrics=dict(content.test_metrics),
        left_out_metrics={name: dict(figures) for name, figures in content.left_out_metrics.items()},
        intended_use=INTENDED_USE,
        limits=LIMITS if content.learned else f"{NOT_LEARNED.format(reason=NOT_BETTER_THAN_CHANCE)} {LIMITS}",
    )


def _self_check(reader: LesionReader) -> float:
    grey = torch.from_numpy(np.ascontiguousarray(synthetic_slice(SELF_CHECK_SEED, SLICE_SIZE)))[None]
    with torch.inference_mode():
        return float(reader(grey)["probability"].item())
