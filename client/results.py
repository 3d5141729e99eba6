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
class Prediction:
    """Prediction for one slice.

    Attributes:
        probability: of COVID-19, 0 to 1.
        label: class label: the positive one at or above `threshold`.
        threshold: at or above it the answer is positive.
        model, version: the model that answered.
        ood_score, ood_threshold, flagged: above its threshold the image does not look like a chest CT slice, and the
            probability means nothing.
        request_id: id of the request in the service's log; empty for a local model.
        disclaimer: part of every answer.
    """

    probability: float
    label: str
    threshold: float
    model: str
    version: str
    ood_score: float
    ood_threshold: float
    flagged: bool
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
                label=str(body["label"]),
                threshold=float(body["threshold"]),
                model=str(body["model"]["name"]),
                version=str(body["model"]["version"]),
                ood_score=float(ood["score"]),
                ood_threshold=float(ood["threshold"]),
                flagged=bool(ood["flagged"]),
                request_id=str(body.get("request_id", "")),
                disclaimer=str(body.get("disclaimer", NOTICE)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AnswerError(f"the answer is not a prediction: {type(error).__name__} at {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Heat map of a prediction.

    Attributes:
        probability, label, threshold: as in `Prediction`.
        heatmap: float32 (h, w), evidence by position, as the service scales it.
        overlay: PNG of the slice with the map over it, or None.
    """

    probability: float
    label: str
    threshold: float
    heatmap: NDArray[np.float32]
    overlay: bytes | None = None

    @classmethod
    def from_json(cls, body: Any) -> "Explanation":
        """Read the JSON of /explain, as `Prediction.from_json` does."""
        try:
            values = np.asarray(body["heatmap"]["values"], dtype=np.float32)
            values = values.reshape(values.shape[0], values.shape[1])  # of two dimensions, or a ValueError
            return cls(
                probability=float(body["probability"]),
                label=str(body["label"]),
                threshold=float(body["threshold"]),
                heatmap=values,
                overlay=_png(body.get("overlay_png_base64")),
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
    """

    card: Mapping[str, Any]
    sha256: str
    device: str
    precision: str

    @classmethod
    def from_json(cls, body: Any) -> "ModelInfo":
        """Read the body of /model."""
        try:
            return cls(dict(body["card"]), str(body["sha256"]), str(body["device"]), str(body["precision"]))
        except (KeyError, TypeError, ValueError) as error:
            raise AnswerError(f"the answer is not a model: {type(error).__name__} at {error}") from error


def _png(value: Any) -> bytes | None:
    """Decode a PNG in base64; None if the value is not a PNG."""
    if not isinstance(value, str):
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("the picture is not base64") from error
    return data if data.startswith(b"\x89PNG") else None
