"""Bodies of requests and responses."""

from pydantic import BaseModel, ConfigDict, Field

from service.artifact import ModelCard
from service.disclaimer import DISCLAIMER


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
