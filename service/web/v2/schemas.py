"""Bodies of requests and responses of the Open Inference Protocol (V2)."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TensorIn(_Message):
    """One input of a request."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=8)
    datatype: str
    parameters: dict[str, Any] = Field(default={}, description="binary_data_size: number of its bytes after the header")
    data: list[Any] | None = Field(default=None, description="values, flat or nested; BYTES as base64")


class RequestedOutput(_Message):
    """A requested output."""

    name: str
    parameters: dict[str, Any] = Field(default={}, description="binary_data: whether to answer it as bytes")


class InferRequest(_Message):
    """JSON header of a request."""

    id: str | None = None
    inputs: list[TensorIn] = Field(min_length=1)
    outputs: list[RequestedOutput] | None = Field(default=None, description="unset: all of them")
    parameters: dict[str, Any] = Field(default={}, description="binary_data_output: whether to answer all as bytes")

    def wants_binary(self, output: RequestedOutput) -> bool:
        """Whether the client wants this output as bytes."""
        return bool(output.parameters.get("binary_data", self.parameters.get("binary_data_output", False)))


class TensorOut(_Message):
    """One output of an answer."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, int] | None = None
    data: list[float] | list[str] | None = None


class InferResponse(_Message):
    """JSON header of an answer."""

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
