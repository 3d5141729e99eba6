"""Outputs of the model in the Open Inference Protocol (V2): their description, and their values."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.inference.served_model import ServedModel
from service.model.assess import Assessment
from service.model.prediction import FACTORS, LungInvolvement
from service.web.v2.schemas import TensorMetadata

Column: TypeAlias = NDArray[np.float32] | list[str]

_ALWAYS: Final = (
    TensorMetadata(name="probability", datatype="FP32", shape=[-1]),
    TensorMetadata(name="label", datatype="BYTES", shape=[-1]),
    TensorMetadata(name="threshold", datatype="FP32", shape=[-1]),
    TensorMetadata(name="out_of_distribution", datatype="FP32", shape=[-1]),
    TensorMetadata(name="heatmap", datatype="FP32", shape=[-1, -1, -1]),
)
_WITH_LUNGS: Final = (
    TensorMetadata(name="lung_involvement", datatype="FP32", shape=[-1, 3]),
    TensorMetadata(name="lung_fraction", datatype="FP32", shape=[-1]),
)
_WITH_FACTORS: Final = (
    *(TensorMetadata(name=name, datatype="FP32", shape=[-1]) for name in FACTORS),
    TensorMetadata(name="lesion_threshold", datatype="FP32", shape=[-1]),
)


def outputs_of(model: ServedModel) -> list[TensorMetadata]:
    """List the outputs of a model."""
    network = model.predictor
    return [
        *_ALWAYS,
        *(_WITH_LUNGS if network.has_lungs else ()),
        *(_WITH_FACTORS if network.has_factors else ()),
    ]


def columns_of(assessments: Sequence[Assessment], model: ServedModel) -> dict[str, Column]:
    """Return the values of assessment output of `outputs_of`, one row for assessment assessment."""

    def numbers(value: Callable[[Assessment], object]) -> NDArray[np.float32]:
        return np.stack([np.asarray(value(assessment), dtype=np.float32) for assessment in assessments])

    columns: dict[str, Column] = {
        "probability": numbers(lambda assessment: assessment.prediction.probability),
        "label": [assessment.label or "" for assessment in assessments],
        "threshold": numbers(lambda assessment: assessment.point.threshold),
        "out_of_distribution": numbers(lambda assessment: assessment.check.score),
        "heatmap": numbers(lambda assessment: assessment.prediction.heatmap),
    }
    if model.predictor.has_lungs:
        columns["lung_involvement"] = numbers(lambda assessment: _row(assessment.prediction.lung_involvement))
        columns["lung_fraction"] = numbers(lambda assessment: assessment.prediction.lung_fraction)
    if model.predictor.has_factors:
        columns["lesion_probability"] = numbers(lambda assessment: assessment.prediction.lesion_probability)
        columns["covid_given_lesion"] = numbers(lambda assessment: assessment.prediction.covid_given_lesion)
        columns["lesion_threshold"] = numbers(lambda assessment: assessment.point.lesion_threshold)
    return columns


def _row(involvement: LungInvolvement | None) -> tuple[float, float, float]:
    if involvement is None:  # no lungs in this picture, and tensors have no null
        return 0.0, 0.0, 0.0
    return involvement.both, involvement.left, involvement.right
