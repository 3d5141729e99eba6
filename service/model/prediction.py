"""Predictions read from the outputs of the network."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from service.errors import ErrorCode, InferenceError, ModelFileError
from service.model.card import AnswerName, CheckName

if TYPE_CHECKING:
    import torch

FACTORS: Final[tuple[AnswerName, ...]] = get_args(AnswerName)
"""Outputs whose product is the probability; networks before 2.1 do not have them."""

LUNG_OUTPUTS: Final = ("lungs", "lung_involvement", "lung_fraction")
"""Outputs of a network that finds lungs."""

_ROW_SHAPES: Final[dict[str, tuple[int | None, ...]]] = {
    "probability": (),
    "lesion_probability": (),
    "covid_given_lesion": (),
    "heatmap": (None, None),
    "lungs": (None, None),
    "lung_involvement": (3,),
    "lung_fraction": (),
}
"""Shape of each output without the batch; None is any length. The scores of checks are numbers."""


class LungInvolvement(BaseModel):
    """Share of the lungs that is lesion in this slice, 0 to 1."""

    model_config = ConfigDict(frozen=True)

    both: float = Field(description="both lungs together")
    left: float = Field(description="the patient's left lung, on the right of the image")
    right: float = Field(description="the patient's right lung, on the left of the image")


@dataclass(frozen=True, slots=True)
class NetworkPrediction:
    """Outputs of the network for one slice; None for outputs that the network does not have.

    Attributes:
        probability: of the positive class, 0 to 1.
        heatmap: float32 (h, w), over the whole slice: probability of lesion, 0 to 1.
        check_scores: by check, 0 to 1: how likely it fails; the card has the thresholds.
        lung_involvement: share of the lungs that is lesion.
        lung_fraction: share of the image that is lung.
        lungs: float32 (h, w), over the whole slice: probability of lung, 0 to 1.
        lesion_probability: that there is a lesion in these lungs, 0 to 1.
        covid_given_lesion: that it is COVID-19 rather than another disease, 0 to 1.
    """

    probability: float
    heatmap: NDArray[np.float32]
    check_scores: Mapping[CheckName, float] = field(default_factory=dict)
    lung_involvement: LungInvolvement | None = None
    lung_fraction: float | None = None
    lungs: NDArray[np.float32] | None = None
    lesion_probability: float | None = None
    covid_given_lesion: float | None = None


def read_outputs(
    outputs: Mapping[str, "torch.Tensor"], count: int, checks: Collection[CheckName]
) -> list[NetworkPrediction | Exception]:
    """Read the first `count` rows of the network's outputs; other rows are padding.

    Args:
        outputs: by name, see `service.model.file.Network`; outputs of other names are ignored.
        count: number of slices.
        checks: checks of the card.

    Returns:
        For each row a prediction, or an `InferenceError` if a value is not finite.

    Raises:
        ModelFileError: an output is missing or has another shape; one line.
    """
    names = ["probability", "heatmap", *checks]
    for group in (LUNG_OUTPUTS, FACTORS):
        if any(name in outputs for name in group):
            names += group
    rows = {name: _rows(outputs, name, count) for name in names}
    return [_prediction({name: values[i] for name, values in rows.items()}, checks) for i in range(count)]


def _rows(outputs: Mapping[str, "torch.Tensor"], name: str, count: int) -> NDArray[np.float32]:
    if name not in outputs:
        raise ModelFileError(f"the network has no output {name!r}; its outputs are {', '.join(sorted(outputs))}")
    rows: NDArray[np.float32] = outputs[name][:count].float().cpu().numpy()
    sides = _ROW_SHAPES.get(name, ())
    shape = rows.shape[1:]
    if len(shape) != len(sides) or any(w is not None and w != s for w, s in zip(sides, shape, strict=True)):
        expected = ", ".join(["N", *("any" if side is None else str(side) for side in sides)])
        raise ModelFileError(f"the network's output {name!r} has the shape {list(rows.shape)}; it must be [{expected}]")
    return rows


def _prediction(row: Mapping[str, NDArray[np.float32]], checks: Collection[CheckName]) -> NetworkPrediction | Exception:
    probability = float(row["probability"])
    if not all(np.isfinite(values).all() for values in row.values()) or not 0 <= probability <= 1:
        return InferenceError("The network's output for this image is not a finite number.", code=ErrorCode.NOT_FINITE)
    lesion, covid = (float(row[name]) if name in row else None for name in FACTORS)
    prediction = NetworkPrediction(
        probability=probability,
        heatmap=row["heatmap"],
        check_scores={name: float(row[name]) for name in checks},
        lesion_probability=lesion,
        covid_given_lesion=covid,
    )
    if "lungs" not in row:
        return prediction
    both, left, right = row["lung_involvement"].tolist()
    return replace(
        prediction,
        lung_involvement=LungInvolvement(both=both, left=left, right=right),
        lung_fraction=float(row["lung_fraction"]),
        lungs=row["lungs"],
    )
