"""Bodies of requests and responses."""

from pydantic import BaseModel, ConfigDict, Field

from service import DISCLAIMER
from service.model.card import FileAgreement, ModelCard, Precision
from service.model.checks import CheckName


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ModelName(_Body):
    """Name and version of the model."""

    name: str = Field(examples=["covid-ct"])
    version: str = Field(examples=["1.0.0"])


class OutOfDistribution(_Body):
    """Result of the checks of the picture."""

    score: float = Field(
        description="highest score of a check divided by its threshold on the card; near 1 the answer is in doubt; 0 "
        "if the model has no checks"
    )
    threshold: float = Field(description="1; above it a check has failed")
    flagged: bool = Field(description="true: a check has failed, so the probability means nothing")
    reason: CheckName | None = Field(description="the check that failed; null if none did")


class LungInvolvement(_Body):
    """Area of lesion divided by area of lung, in this slice: 0 to 1."""

    both: float = Field(description="both lungs together")
    left: float = Field(description="the patient's left lung, on the right of the picture")
    right: float = Field(description="the patient's right lung, on the left of the picture")


class Timings(_Body):
    """Milliseconds in each stage."""

    read: float = Field(description="receiving the body and reading the form")
    decode: float = Field(description="from the file to the input of the network")
    queue: float = Field(description="waiting for the batch to start")
    inference: float = Field(description="the batch in the network")


class PredictionBody(_Body):
    """Prediction for one slice."""

    request_id: str
    probability: float = Field(ge=0, le=1, description="of COVID-19")
    label: str | None = Field(
        description="COVID where the probability is at or above the threshold; null if a check has failed, because the "
        "probability means nothing then",
        examples=["COVID"],
    )
    threshold: float = Field(description="of the operating point")
    operating_point: str = Field(description="operating point of the model's card that was used", examples=["balanced"])
    lung_involvement: LungInvolvement | None = Field(description="null if the model does not find lungs")
    lung_fraction: float | None = Field(
        description="area of the lungs divided by that of the picture; null if the model does not find lungs"
    )
    model: ModelName
    out_of_distribution: OutOfDistribution
    timings_milliseconds: Timings
    disclaimer: str = DISCLAIMER


class Map(_Body):
    """Values over the whole slice, on a coarse grid."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    values: list[list[float]] = Field(description="rows from top to bottom")


class Explanation(PredictionBody):
    """Prediction for one slice, with its heat map."""

    heatmap: Map = Field(
        description="probability of lesion, 0 to 1, and 0 outside the lungs; how much the network looked at each "
        "position, relative to the strongest one, if the model does not find lungs"
    )
    lungs: Map | None = Field(description="probability of lung, 0 to 1; null if the model does not find lungs")
    slice_png_base64: str = Field(description="PNG: the decoded slice, grey")
    overlay_png_base64: str = Field(
        description="PNG of the same size: the slice with the heat map in colour on a fixed scale from 0 to 1, and its "
        "contour at 0.25; with `?lungs=true` also the outline of the lungs"
    )


class BatchResult(_Body):
    """Result of one image: a prediction or a problem."""

    index: int = Field(ge=0, description="place of the image in the request, from 0")
    prediction: PredictionBody | None
    problem: "Problem | None"


class BatchBody(_Body):
    """Results of all images, in the order of the request."""

    request_id: str
    results: list[BatchResult]
    disclaimer: str = DISCLAIMER


class PublicCard(ModelCard):
    """The model card without the versions of libraries, which are not public."""

    libraries: dict[str, str] = Field(default={}, exclude=True)


class ModelBody(_Body):
    """The served model."""

    card: PublicCard
    sha256: str = Field(description="of the model file")
    device: str
    precision: Precision = Field(description="compute precision")
    precision_milliseconds: dict[Precision, float] = Field(
        description="time of one convolution of the network's kind, by precision that was compared at the start, the "
        "fastest first; empty if there was no choice"
    )
    operating_point: str = Field(description="operating point of the card for requests that name none")
    agreement: FileAgreement | None = Field(
        description="answers of this file to the test split, compared with those that the card's figures are of; null "
        "if unknown"
    )
    disclaimer: str = DISCLAIMER


class Health(_Body):
    """The service's state."""

    status: str = Field(examples=["ok"])


class Problem(_Body):
    """Problem document (RFC 9457, application/problem+json)."""

    type: str = Field(description="URN of the code", examples=["urn:covidct:problem:damaged_image"])
    title: str
    status: int
    detail: str = Field(description="the reason, the place, and what to do")
    code: str = Field(description="stable name for programs", examples=["damaged_image"])
    request_id: str
