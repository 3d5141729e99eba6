"""Bodies of requests and responses."""

from pydantic import BaseModel, ConfigDict, Field

from service import DISCLAIMER
from service.model.card import ModelCard


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ModelName(_Body):
    """Which model answered."""

    name: str = Field(examples=["covid-ct"])
    version: str = Field(examples=["1.0.0"])


class OutOfDistribution(_Body):
    """Whether the image looks like a chest CT slice at all."""

    score: float = Field(description="how unlike the training slices the image is; they have about 1")
    threshold: float = Field(description="above it an image is flagged")
    flagged: bool = Field(
        description="true: this does not look like a chest CT slice, so the probability means nothing"
    )


class Timings(_Body):
    """Milliseconds in each stage."""

    read: float = Field(description="receiving the body and taking the file out of the form")
    decode: float = Field(description="from the file to the network's input")
    queue: float = Field(description="waiting for the batch to start")
    inference: float = Field(description="the batch in the network")


class PredictionBody(_Body):
    """The answer to one slice."""

    request_id: str
    probability: float = Field(ge=0, le=1, description="of COVID-19")
    label: str = Field(description="COVID where the probability is at or above the threshold", examples=["COVID"])
    threshold: float
    model: ModelName
    out_of_distribution: OutOfDistribution
    timings_milliseconds: Timings
    disclaimer: str = DISCLAIMER


class Heatmap(_Body):
    """Evidence by position, coarse: the network's last layer."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    values: list[list[float]] = Field(
        description="rows from top to bottom; above 0 is evidence for COVID, below 0 against it, in the network's own "
        "unit, so compare places of one slice alone"
    )


class Explanation(PredictionBody):
    """The answer to one slice, with what it rests on."""

    heatmap: Heatmap
    slice_png_base64: str = Field(description="PNG: the slice as it was read, grey")
    overlay_png_base64: str = Field(description="PNG of the same size: the slice with the evidence for COVID in colour")


class BatchResult(_Body):
    """What became of one image: a prediction or a problem."""

    index: int = Field(ge=0, description="place of the image in the request, from 0")
    prediction: PredictionBody | None
    problem: "Problem | None"


class BatchBody(_Body):
    """What became of each image, in the order in which they were sent."""

    request_id: str
    results: list[BatchResult]
    disclaimer: str = DISCLAIMER


class PublicCard(ModelCard):
    """The model's card without the versions of libraries, which strangers need not know."""

    libraries: dict[str, str] = Field(default={}, exclude=True)


class ModelBody(_Body):
    """The model that is served."""

    card: PublicCard
    sha256: str = Field(description="of the model file")
    device: str
    precision: str = Field(description="what the network computes in")
    disclaimer: str = DISCLAIMER


class Health(_Body):
    """The service's state."""

    status: str = Field(examples=["ok"])


class Problem(_Body):
    """What went wrong, as RFC 9457 has it (application/problem+json)."""

    type: str = Field(description="URN of the code", examples=["urn:covidct:problem:damaged_image"])
    title: str
    status: int
    detail: str = Field(description="what was wrong, where, and what to do")
    code: str = Field(description="stable name for programs", examples=["damaged_image"])
    request_id: str
