"""Bodies of requests and responses."""

from pydantic import BaseModel, ConfigDict, Field

from service import DISCLAIMER
from service.model.card import ModelCard


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ModelName(_Body):
    """Name and version of the model."""

    name: str = Field(examples=["covid-ct"])
    version: str = Field(examples=["1.0.0"])


class OutOfDistribution(_Body):
    """Result of the out-of-distribution check."""

    score: float = Field(description="distance from the training slices, whose average is 1; higher is less similar")
    threshold: float = Field(description="scores above it are out of distribution")
    flagged: bool = Field(
        description="true: the image does not look like a chest CT slice, so the probability has no meaning"
    )


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
    label: str = Field(description="COVID where the probability is at or above the threshold", examples=["COVID"])
    threshold: float
    model: ModelName
    out_of_distribution: OutOfDistribution
    timings_milliseconds: Timings
    disclaimer: str = DISCLAIMER


class Heatmap(_Body):
    """Evidence by position, in the coarse grid of the network's last layer."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    values: list[list[float]] = Field(
        description="rows from top to bottom; above 0 is evidence for COVID, below 0 against it, in the network's "
        "unit; compare values of one slice only"
    )


class Explanation(PredictionBody):
    """Prediction for one slice, with its heat map."""

    heatmap: Heatmap
    slice_png_base64: str = Field(description="PNG: the decoded slice, grey")
    overlay_png_base64: str = Field(description="PNG of the same size: the slice with the evidence for COVID in colour")


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
    precision: str = Field(description="compute precision")
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
