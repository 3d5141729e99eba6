"""Bodies of requests and responses of the Open Inference Protocol (V2)."""

from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

_MAX_TENSORS: Final = 16
"""Inputs, or outputs, of a request: a list without a limit keeps an error, 1 kB, for each malformed element."""

T = TypeVar("T")

_NullIsAbsent = Annotated[T, BeforeValidator(lambda value: {} if value is None else value)]
"""Parameters: null means that there are none."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Parameters(_Message):
    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def has_shared_memory(self) -> bool:
        """Whether the client asks for shared memory, which is not supported."""
        return any(name.startswith("shared_memory") for name in self.model_extra or ())

    @property
    def has_classification(self) -> bool:
        """Whether the client asks for the highest classes, which is not supported."""
        return "classification" in (self.model_extra or ())


class InputParameters(_Parameters):
    """Parameters of an input."""

    binary_data_size: StrictInt | None = Field(default=None, description="number of its bytes after the header")


class OutputParameters(_Parameters):
    """Parameters of a requested output."""

    binary_data: StrictBool | None = Field(default=None, description="whether to return it as bytes")


class RequestParameters(_Parameters):
    """Parameters of a request."""

    binary_data_output: StrictBool | None = Field(default=None, description="whether to return all outputs as bytes")


class TensorIn(_Message):
    """One input of a request."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=8)
    datatype: str
    parameters: _NullIsAbsent[InputParameters] = InputParameters()
    data: list[Any] | None = Field(default=None, description="values, flat or nested; BYTES as base64")


class RequestedOutput(_Message):
    """A requested output."""

    name: str
    parameters: _NullIsAbsent[OutputParameters] = OutputParameters()


class InferRequest(_Message):
    """JSON header of a request."""

    id: str | None = None
    inputs: list[TensorIn] = Field(min_length=1, max_length=_MAX_TENSORS)
    outputs: list[RequestedOutput] | None = Field(
        default=None, max_length=_MAX_TENSORS, description="unset: all of them"
    )
    parameters: _NullIsAbsent[RequestParameters] = RequestParameters()

    def wants_binary(self, output: RequestedOutput) -> bool:
        """Whether the client wants this output as bytes."""
        binary = output.parameters.binary_data
        return bool(self.parameters.binary_data_output if binary is None else binary)


class TensorOut(_Message):
    """One output of a response."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, int] | None = None
    data: list[float] | list[str] | None = None


class InferResponse(_Message):
    """JSON header of a response."""

    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[TensorOut]


class V2Error(BaseModel):
    """Error in the form of the protocol."""

    error: str
    code: str
    request_id: str


class ServerMetadata(BaseModel):
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Description of the served model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """Liveness of the server."""

    live: bool


class ServerReady(BaseModel):
    """Readiness of the server."""

    ready: bool


class ModelReady(BaseModel):
    """Readiness of the model."""

    name: str
    ready: bool


class TensorConfig(BaseModel):
    """An input or output in the form of Triton's configuration; -1 is any length."""

    name: str
    data_type: str = Field(examples=["TYPE_FP32"])
    dims: list[int]
    optional: bool | None = Field(default=None, description="true for inputs, because a request has one of them")


class ModelConfig(BaseModel):
    """Configuration of the served model."""

    name: str
    platform: str
    backend: str
    max_batch_size: int = Field(description="0: the shapes include the number of rows")
    input: list[TensorConfig]
    output: list[TensorConfig]


class DurationStatistics(BaseModel):
    """Number of slices, and the sum of their nanoseconds."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Counts and times of slices; compute_input and compute_output are not measured and have 0 ns."""

    success: DurationStatistics
    fail: DurationStatistics
    queue: DurationStatistics
    compute_input: DurationStatistics
    compute_infer: DurationStatistics
    compute_output: DurationStatistics


class ModelStatisticsRow(BaseModel):
    """Statistics of a model since it was loaded."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970; 0 before the first")
    inference_count: int = Field(description="answered slices")
    execution_count: int = Field(description="batches")
    inference_stats: InferenceStatistics
    batch_stats: list[DurationStatistics] = Field(description="empty: not kept for each size")


class Statistics(BaseModel):
    """Statistics of all models."""

    model_stats: list[ModelStatisticsRow]


class RepositoryRow(BaseModel):
    """A model in the repository."""

    name: str
    version: str
    state: str = Field(examples=["READY"])
    reason: str
