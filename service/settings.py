"""Everything an operator may set, from the environment; units are in the names."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The service's settings; each field is read from COVIDCT_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="COVIDCT_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on; the default is this machine only")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes any free one")
    models_dir: Path = Field(default=Path("models"), description="folder with metrics.json and the model file it names")

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU if there is one")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        default="auto",
        description="what the network computes in; auto: fp16 on a GPU; int8, bf16 on a CPU that has it, else fp32",
    )
    threads: int | None = Field(
        default=None, ge=1, description="threads of the network on a CPU; default: the processors the process may use"
    )

    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="accepted API keys, comma-separated; default: requests need no key",
    )
    api_keys_file: Path | None = Field(
        default=None, description="file with such keys, one a line; read again at each reload"
    )
    allowed_hosts: str = Field(
        default="",
        description="names in Host that are answered, separated by commas; unset: this machine's where it listens to "
        "that alone, else any",
    )
    cors_origins: str = Field(
        default="", description="origins whose pages may call the service, separated by commas; unset: none"
    )
    docs: bool = Field(default=True, description="whether /docs and /openapi.json answer")

    max_connections: int = Field(default=512, gt=0, description="open connections; more get a 503")
    header_timeout_seconds: float = Field(
        default=10.0, gt=0, description="for a request's line and headers; later the connection is closed with a 408"
    )
    receive_timeout_seconds: float = Field(default=20.0, gt=0, description="for a request's body; later it is a 408")
    max_body_bytes: int = Field(default=20 * 1024 * 1024, gt=0, description="largest request body")
    max_pixels: int = Field(default=4096 * 4096, gt=0, description="largest image, width times height")
    max_images_per_request: int = Field(
        default=32, gt=0, description="images in a request to /predict/batch, or rows of /v2's tensors"
    )
    max_concurrent_requests: int = Field(
        default=256, gt=0, description="requests with images at a time; more get a 503"
    )
    request_timeout_seconds: float = Field(
        default=30.0, gt=0, description="from the request's first byte to its answer; later it is a 504"
    )
    drain_seconds: float = Field(
        default=1.0, ge=0, description="after SIGTERM: how long it still takes requests while it says it is not ready"
    )
    shutdown_grace_seconds: int = Field(
        default=30, ge=0, description="after that: how long requests in flight may take"
    )

    batch_max_size: int | None = Field(
        default=None,
        ge=1,
        description="slices the network takes at once; default: 1 on a CPU, 64 on a GPU",
    )
    queue_max_length: int = Field(default=128, gt=0, description="slices that may wait for the network; more get a 503")

    out_of_distribution: Literal["flag", "refuse"] = Field(
        default="refuse",
        description="an image that does not look like a chest CT slice: refuse it with a 422, or answer and flag it",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="least level logged")


def comma_separated(setting: str) -> tuple[str, ...]:
    """Split a setting that lists values between commas."""
    return tuple(part for part in (piece.strip() for piece in setting.split(",")) if part)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
