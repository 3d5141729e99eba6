"""Response bodies of the API, shared by routes, client and command line, without torch or a web framework."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from service import DISCLAIMER
from service.model.assess import SCORE_THRESHOLD, Assessment
from service.model.card import CheckName, FileAgreement, ModelCard, Precision
from service.model.prediction import LungInvolvement

_MAP_DECIMALS: Final = 4
"""Decimals of a map's values: finer than the networks compute, in a third of the bytes."""


def _from_base64(value: object) -> object:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except binascii.Error as error:
        raise ValueError("not base64") from error


FileBytes = Annotated[
    bytes, BeforeValidator(_from_base64), PlainSerializer(lambda data: base64.b64encode(data).decode(), return_type=str)
]
"""Bytes of a file; base64 (RFC 4648, 4) in JSON."""


class Body(BaseModel):
    """Base class of response bodies; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), validate_by_name=True, validate_by_alias=True)


class ModelName(Body):
    """Name and version of the model."""

    name: str = Field(examples=["covid-ct"])
    version: str = Field(examples=["1.0.0"])


class OutOfDistribution(Body):
    """Result of the checks of the image."""

    score: float = Field(
        description="highest score of a check divided by its threshold on the card; above 1 a check has failed; 0 if "
        "the model has no checks"
    )
    threshold: float = Field(description="always 1; above it a check has failed")
    flagged: bool = Field(description="true: a check has failed, so the probability is meaningless")
    reason: CheckName | None = Field(description="the check that failed; null if none did")


class Timings(Body):
    """Milliseconds in each stage."""

    read: float = Field(description="receiving the body and reading the form")
    decode: float = Field(description="from the file to the input of the network")
    queue: float = Field(description="waiting for the batch to start")
    inference: float = Field(description="the batch in the network")


class SlicePrediction(Body):
    """Prediction for one slice, by a model in this process or by a service."""

    probability: float = Field(
        ge=0, le=1, description="of COVID-19: lesion_probability times covid_given_lesion where the model answers these"
    )
    lesion_probability: float | None = Field(
        default=None, ge=0, le=1, description="that these lungs show a lesion; null if the model does not predict it"
    )
    covid_given_lesion: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="that it looks like COVID-19 rather than another disease; null if the model does not predict it",
    )
    label: str | None = Field(
        description="COVID where the probability is at or above the threshold, and the lesion probability at or above "
        "its own; null if a check has failed",
        examples=["COVID"],
    )
    threshold: float = Field(description="of the probability, at the operating point")
    lesion_threshold: float | None = Field(
        default=None,
        description="of the lesion probability, at the operating point; null if the model does not predict it",
    )
    operating_point: str = Field(description="operating point of the model's card that was used", examples=["balanced"])
    lung_involvement: LungInvolvement | None = Field(description="null if the model finds no lungs")
    lung_fraction: float | None = Field(
        description="share of the image that is lung; null if the model does not find lungs"
    )
    model: ModelName
    out_of_distribution: OutOfDistribution
    disclaimer: str = DISCLAIMER

    @classmethod
    def of(cls, assessment: Assessment, card: ModelCard) -> "SlicePrediction":
        """Build the body from an assessment by the model of `card`."""
        prediction, check = assessment.prediction, assessment.check
        return SlicePrediction(
            probability=prediction.probability,
            lesion_probability=prediction.lesion_probability,
            covid_given_lesion=prediction.covid_given_lesion,
            label=assessment.label,
            threshold=assessment.point.threshold,
            lesion_threshold=None if prediction.lesion_probability is None else assessment.point.lesion_threshold,
            operating_point=assessment.point.name,
            lung_involvement=prediction.lung_involvement,
            lung_fraction=prediction.lung_fraction,
            model=ModelName(name=card.name, version=card.version),
            out_of_distribution=OutOfDistribution(
                score=check.score, threshold=SCORE_THRESHOLD, flagged=check.failed, reason=check.reason
            ),
        )


class Prediction(SlicePrediction):
    """Prediction for one slice by a service."""

    request_id: str
    timings_milliseconds: Timings

    @classmethod
    def by_service(
        cls, assessment: Assessment, card: ModelCard, request_id: str, milliseconds: Mapping[str, float]
    ) -> "Prediction":
        """Build the body of a response; `milliseconds` has the time of each stage."""
        prediction = SlicePrediction.of(assessment, card)
        return Prediction(**dict(prediction), request_id=request_id, timings_milliseconds=Timings(**milliseconds))


class Map(Body):
    """Values over the whole slice, on a coarse grid."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    values: list[list[float]] = Field(description="rows from top to bottom")

    @model_validator(mode="after")
    def _has_its_size(self) -> Self:
        if len(self.values) != self.height or any(len(row) != self.width for row in self.values):
            raise ValueError(f"the values are not {self.height} rows of {self.width}")
        return self

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Map":
        """Build a map from float32 (h, w)."""
        height, width = values.shape
        return cls(width=width, height=height, values=values.astype(np.float64).round(_MAP_DECIMALS).tolist())

    def to_numpy(self) -> NDArray[np.float32]:
        """Return float32 (height, width)."""
        return np.asarray(self.values, dtype=np.float32)


class Explanation(Prediction):
    """Prediction for one slice by a service, with its heat map."""

    heatmap: Map = Field(
        description="probability of lesion, 0 to 1, and 0 outside the lungs; activity of the network, relative to "
        "its maximum, if the model does not find lungs"
    )
    lungs: Map | None = Field(description="probability of lung, 0 to 1; null if the model does not find lungs")
    slice_png: FileBytes = Field(alias="slice_png_base64", description="PNG: the decoded slice, grey")
    overlay_png: FileBytes = Field(
        alias="overlay_png_base64",
        description="PNG of the same size: the slice with the heat map in colour on a fixed scale from 0 to 1, and its "
        "contour at 0.25; with `?lungs=true` also the outline of the lungs",
    )


class Problem(Body):
    """Problem document (RFC 9457, application/problem+json)."""

    type: str = Field(description="URN of the code", examples=["urn:covidct:problem:damaged_image"])
    title: str
    status: int
    detail: str = Field(description="the reason, the place, and what to do")
    code: str = Field(description="stable name for programs", examples=["damaged_image"])
    request_id: str


class BatchResult(Body):
    """Result of one image: a prediction or a problem."""

    index: int = Field(ge=0, description="place of the image in the request, from 0")
    name: str | None = Field(default=None, description="file name that the request gives the image, if it gives one")
    prediction: Prediction | None
    problem: Problem | None


class BatchAnswer(Body):
    """Results of all images, in the order of the request."""

    request_id: str
    results: list[BatchResult]
    disclaimer: str = DISCLAIMER


class PublicCard(ModelCard):
    """The model card without the versions of libraries, which are not public."""

    model_config = ConfigDict(extra="ignore")

    libraries: dict[str, str] = Field(default={}, exclude=True)


class ModelInfo(Body):
    """The served model."""

    card: PublicCard
    sha256: str = Field(description="of the model file")
    device: str
    precision: Precision = Field(description="compute precision")
    precision_milliseconds: dict[Precision, float] = Field(
        description="time of one convolution in each precision that was compared at the start, fastest first; empty "
        "if there was no choice"
    )
    operating_point: str = Field(description="operating point of the card for requests that name none")
    agreement: FileAgreement | None = Field(
        description="how closely this file reproduces the published test results; null if unknown"
    )
    disclaimer: str = DISCLAIMER


class Health(Body):
    """The service's state."""

    status: str = Field(examples=["ok"])
