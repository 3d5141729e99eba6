"""The service's answers, and how a notebook shows them."""

import base64
import binascii
import html
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
    """The answer to one slice.

    Attributes:
        probability: of COVID-19, 0 to 1.
        label: the model's word for the side of `threshold` that it is on.
        threshold: at or above it the answer is positive.
        model, version: which model answered.
        ood_score, ood_threshold, flagged: above its threshold the image does not look like a chest CT slice, and the
            probability means nothing.
        request_id: under which the service's log has it; empty for a local model.
        overlay: PNG of the slice with its heat map, where one was asked for.
        disclaimer: what goes with every answer.
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
    overlay: bytes | None = None
    disclaimer: str = NOTICE

    @classmethod
    def from_json(cls, body: Any) -> "Prediction":
        """Read the body of an answer; fields that this version does not know are passed over.

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
                overlay=_png((body.get("heatmap") or {}).get("png_base64")),
                disclaimer=str(body.get("disclaimer", NOTICE)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AnswerError(f"the answer is no prediction: {type(error).__name__} at {error}") from error

    def _repr_html_(self) -> str:
        return _card(self.probability, self.threshold, self.label, self.overlay, self._words(), self.disclaimer)

    def _words(self) -> str:
        words = f"{self.model} {self.version}"
        return words + (" · This does not look like a chest CT slice." if self.flagged else "")


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where the evidence of an answer lies.

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
            raise AnswerError(f"the answer is no explanation: {type(error).__name__} at {error}") from error

    def _repr_html_(self) -> str:
        return _card(self.probability, self.threshold, self.label, self.overlay, "", NOTICE)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served.

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
            raise AnswerError(f"the answer is no model: {type(error).__name__} at {error}") from error


def _png(value: Any) -> bytes | None:
    """A PNG in base64; None for what is none."""
    if not isinstance(value, str):
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("the picture is not base64") from error
    return data if data.startswith(b"\x89PNG") else None


def _card(probability: float, threshold: float, label: str, overlay: bytes | None, words: str, notice: str) -> str:
    """HTML of a result; everything that came from outside is escaped."""
    percent, mark = (100 * min(max(value, 0.0), 1.0) for value in (probability, threshold))
    picture = ""
    if overlay is not None:
        encoded = base64.b64encode(overlay).decode()
        picture = f'<img alt="slice with heat map" style="max-width:100%" src="data:image/png;base64,{encoded}">'
    return (
        '<div style="max-width:26em;font-family:sans-serif">'
        f"<strong>{html.escape(label)}</strong>, probability of COVID-19 {percent:.1f} % "
        f"(threshold {mark:.1f} %)"
        f'<div role="img" aria-label="probability {percent:.1f} percent" '
        'style="position:relative;height:1em;background:#ccc;margin:.3em 0">'
        f'<div style="width:{percent:.1f}%;height:100%;background:#3367b0"></div>'
        f'<div style="position:absolute;left:{mark:.1f}%;top:0;height:100%;border-left:2px solid #000"></div></div>'
        f"<div>{html.escape(words)}</div>{picture}<small>{html.escape(notice)}</small></div>"
    )
