"""The service's answers."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from client.errors import AnswerError

NOTICE: Final = "Research software, not a medical device: not for diagnosis or any decision about a patient."
"""Shown with every result."""


@dataclass(frozen=True, slots=True)
class LungInvolvement:
    """Area of lesion divided by area of lung in one slice, 0 to 1.

    Attributes:
        both: of both lungs together.
        left, right: of the patient's left and right lung; the left one is on the right of the picture.
    """

    both: float
    left: float
    right: float

    @classmethod
    def from_json(cls, body: Any) -> "LungInvolvement | None":
        """Read the part of an answer; None if the model does not find lungs."""
        return None if body is None else cls(float(body["both"]), float(body["left"]), float(body["right"]))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Prediction for one slice.

    Attributes:
        probability: of COVID-19, 0 to 1.
        label: class label: the positive one at or above `threshold`; None if a check failed.
        threshold: at or above it the answer is positive.
        model, version: the model that answered.
        ood_score, ood_threshold, flagged: above its threshold the picture fails a check of the model, and the
            probability means nothing.
        reason: the check that failed: `no_lungs`, `wrong_window` or `several_panels`; None if none did.
        lung_involvement: share of the lungs that is lesion; None if the model does not find lungs.
        lung_fraction: area of the lungs divided by that of the picture; None if the model does not find lungs.
        operating_point: name of the threshold on the model's card.
        request_id: id of the request in the service's log; empty for a local model.
        disclaimer: part of every answer.
    """

    probability: float
    label: str | None
    threshold: float
    model: str
    version: str
    ood_score: float
    ood_threshold: float
    flagged: bool
    reason: str | None = None
    lung_involvement: LungInvolvement | None = None
    lung_fraction: float | None = None
    operating_point: str = ""
    request_id: str = ""
    disclaimer: str = NOTICE

    @classmethod
    def from_json(cls, body: Any) -> "Prediction":
        """Read the body of an answer; unknown fields are ignored.

        Raises:
            AnswerError: a field is missing or of another type.
        """
        try:
            ood = body["out_of_distribution"]
            return cls(
                probability=float(body["probability"]),
                label=_text(body["label"]),
                threshold=float(body["threshold"]),
                model=str(body["model"]["name"]),
                version=str(body["model"]["version"]),
                ood_score=float(ood["score"]),
                ood_threshold=float(ood["threshold"]),
                flagged=bool(ood["flagged"]),
                reason=_text(ood["reason"]),
                lung_involvement=LungInvolvement.from_json(body["lung_involvement"]),
                lung_fraction=_number(body["lung_fraction"]),
                operating_point=str(body["operating_point"]),
                request_id=str(body.get("request_id", "")),
                disclaimer=str(body.get("disclaimer", NOTICE)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AnswerError(f"the answer is not a prediction: {type(error).__name__} at {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Heat map of a prediction.

    Attributes:
        probability, label, threshold, operating_point: as in `Prediction`.
        heatmap: float32 (h, w), over the whole slice: probability of lesion, 0 to 1.
        lung_involvement: as in `Prediction`.
        lungs: float32 (h, w), over the whole slice: probability of lung, 0 to 1; None if the model does not find lungs.
        overlay: PNG of the slice with the heat map over it, or None.
    """

    probability: float
    label: str | None
    threshold: float
    heatmap: NDArray[np.float32]
    lung_involvement: LungInvolvement | None = None
    lungs: NDArray[np.float32] | None = None
    overlay: bytes | None = None
    operating_point: str = ""

    @classmethod
    def from_json(cls, body: Any) -> "Explanation":
        """Read the JSON of /explain, as `Prediction.from_json` does."""
        try:
            return cls(
                probability=float(body["probability"]),
                label=_text(body["label"]),
                threshold=float(body["threshold"]),
                heatmap=_map(body["heatmap"]),
                lung_involvement=LungInvolvement.from_json(body["lung_involvement"]),
                lungs=None if body["lungs"] is None else _map(body["lungs"]),
                overlay=_png(body.get("overlay_png_base64")),
                operating_point=str(body["operating_point"]),
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise AnswerError(f"the answer is not an explanation: {type(error).__name__} at {error}") from error


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Served model.

    Attributes:
        card: the model's card.
        sha256: hash of its file.
        device, precision: where and in what it computes.
        operating_point: that of the card which gives the label, for requests that name none.
    """

    card: Mapping[str, Any]
    sha256: str
    device: str
    precision: str
    operating_point: str

    @classmethod
    def from_json(cls, body: Any) -> "ModelInfo":
        """Read the body of /model."""
        try:
            rest = [str(body[name]) for name in ("sha256", "device", "precision", "operating_point")]
            return cls(dict(body["card"]), *rest)
        except (KeyError, TypeError, ValueError) as error:
            raise AnswerError(f"the answer is not a model: {type(error).__name__} at {error}") from error


def _map(body: Any) -> NDArray[np.float32]:
    values = np.asarray(body["values"], dtype=np.float32)
    return values.reshape(values.shape[0], values.shape[1])  # of two dimensions, or a ValueError


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _png(value: Any) -> bytes | None:
    """Decode a PNG in base64; None if the value is not a PNG."""
    if not isinstance(value, str):
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("the picture is not base64") from error
    return data if data.startswith(b"\x89PNG") else None
