"""Settings from the environment; units are in the names."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_HOST_NAME = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?"
_ALLOWED_HOST = re.compile(rf"\*|\*\.{_HOST_NAME}|({_HOST_NAME}|\[[0-9a-f:.]+\])(:\d{{1,5}})?")


class Settings(BaseSettings):
    """The service's settings; each field is read from COVIDCT_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="COVIDCT_", frozen=True, extra="forbid", validate_default=False)

    host: str = Field(default="127.0.0.1", description="address to listen on; the default is this machine only")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0: any free port")
    models_dir: Path = Field(default=Path("models"), description="folder with metrics.json and the model file it names")

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU if available, else the CPU")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        default="auto",
        description="compute precision; auto: fp16 on a GPU; on a CPU the fastest of int8, bf16 and fp32, measured at "
        "the start",
    )
    threads: int | None = Field(
        default=None, ge=1, description="threads of the network on a CPU; default: number of usable processors"
    )

    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="accepted API keys, comma-separated; default: requests need no key",
    )
    api_keys_file: Path | None = Field(
        default=None, description="file with one API key per line; read again at each reload"
    )
    allowed_hosts: str = Field(
        default="",
        description="accepted Host names, comma-separated, each with or without a port; *.example.org: every name "
        "below it, *: any; default: loopback names when listening on loopback, else any",
    )
    cors_origins: str = Field(
        default="", description="origins whose web pages may call the service, comma-separated; default: none"
    )
    docs: bool = Field(default=True, description="serve /docs and /openapi.json")

    max_connections: int = Field(
        default=512,
        gt=0,
        description="maximum open connections; one more takes the place of the one that waits longest for its client",
    )
    header_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        description="maximum time to receive request line and headers; then 408 and the connection is closed",
    )
    receive_timeout_seconds: float = Field(
        default=20.0, gt=0, description="maximum time to receive a request body; then 408"
    )
    max_body_bytes: ByteSize = Field(
        default=ByteSize(20 * 1024 * 1024),
        gt=0,
        description="maximum size of a request body, in bytes or with a unit, such as 20MB or 20MiB",
    )
    max_pixels: int = Field(default=4096 * 4096, gt=0, description="maximum image size, width times height")
    decode_seconds: float = Field(
        default=10.0,
        gt=0,
        description="maximum processor time to decode an image, in seconds; then 422 and the decoder is ended",
    )
    decode_memory_bytes: ByteSize = Field(
        default=ByteSize(320 * 1024 * 1024),
        gt=0,
        description="maximum memory to decode an image, in bytes or with a unit; then 422 and the decoder is ended",
    )
    max_images_per_request: int = Field(
        default=32, gt=0, description="maximum images of a request to /predict/batch, or rows of a tensor under /v2"
    )
    max_study_bytes: ByteSize = Field(
        default=ByteSize(384 * 1024**2),
        gt=0,
        description="maximum size of the body of a request to /predict/study, held in memory; a zip may unpack "
        "to four times as much",
    )
    max_study_slices: int = Field(default=2000, gt=0, description="maximum slices of a study")
    max_concurrent_studies: int = Field(
        default=2, gt=0, description="maximum concurrent requests to /predict/study; more get a 503"
    )
    study_timeout_seconds: float = Field(
        default=600.0, gt=0, description="maximum time from the first byte of a study to its response; then 504"
    )
    max_concurrent_requests: int = Field(
        default=64,
        gt=0,
        description="maximum concurrent requests with images; more get a 503; each may hold max_body_bytes of memory",
    )
    request_timeout_seconds: float = Field(
        default=30.0, gt=0, description="maximum time from the first byte of a request to its response; then 504"
    )
    drain_seconds: float = Field(
        default=1.0,
        ge=0,
        description="seconds to keep accepting requests after SIGTERM while /health/ready answers 503",
    )
    shutdown_grace_seconds: int = Field(
        default=30, ge=0, description="maximum seconds for accepted requests after the drain"
    )

    batch_max_size: int | None = Field(
        default=None,
        ge=1,
        description="maximum slices in a batch; default: 1 on a CPU, 64 on a GPU",
    )
    queue_max_length: int = Field(
        default=128, gt=0, description="maximum slices waiting for the network; more get a 503"
    )

    out_of_distribution: Literal["flag", "refuse"] = Field(
        default="refuse",
        description="images without lungs, in another window, or with several panels: refuse them with 422, or flag "
        "them",
    )
    operating_point: str = Field(
        default="",
        description="operating point of the model's card that gives the label, such as screening, for requests that "
        "name none; default: the card's threshold",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="lowest level to log")

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, level: object) -> object:
        return level.upper() if isinstance(level, str) else level

    @field_validator("host")
    @classmethod
    def _an_address(cls, host: str) -> str:
        if not host:
            raise ValueError(
                "the address is empty; remove the variable to listen on this machine only, or write 0.0.0.0"
            )
        return host

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, hosts: str) -> str:
        """Check each name and put an IPv6 address into brackets, as a Host header has it."""
        names = [_in_brackets(name.lower()) for name in comma_separated(hosts)]
        for name in names:
            if not _ALLOWED_HOST.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a Host name: write a name or address without scheme and path, such as "
                    "ct.example.org, ct.example.org:8443, *.example.org or ::1"
                )
        return ",".join(names)

    @field_validator("api_keys")
    @classmethod
    def _not_empty(cls, keys: SecretStr) -> SecretStr:
        """Refuse an empty list, which would open the service to everybody; the default is not checked."""
        if not comma_separated(keys.get_secret_value()):
            raise ValueError("the list is empty; set keys, or remove the variable so that requests need no key")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _with_scheme(cls, origins: str) -> str:
        for origin in comma_separated(origins):
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(
                    f"{origin!r} is not an origin: write scheme, name and port if it is not the default, without a "
                    "path, such as https://ct.example.org"
                )
        return origins

    def contradictions(self) -> list[str]:
        """List settings that cannot apply together, one line for each; empty if all can."""
        contradictions = []
        for name in ("header_timeout_seconds", "receive_timeout_seconds"):
            seconds = getattr(self, name)
            if name in self.model_fields_set and seconds > self.request_timeout_seconds:
                contradictions.append(
                    f"{_variable(name)}={seconds:g} can never apply: COVIDCT_REQUEST_TIMEOUT_SECONDS="
                    f"{self.request_timeout_seconds:g} ends a request before; raise that, or lower this"
                )
        if self.queue_max_length < self.max_images_per_request:
            contradictions.append(
                f"COVIDCT_QUEUE_MAX_LENGTH={self.queue_max_length} is less than COVIDCT_MAX_IMAGES_PER_REQUEST="
                f"{self.max_images_per_request}: one request could fill the queue; raise the first, or lower the second"
            )
        if self.max_connections <= self.max_concurrent_requests:
            contradictions.append(
                f"COVIDCT_MAX_CONNECTIONS={self.max_connections} leaves no place for health and metrics next to "
                f"COVIDCT_MAX_CONCURRENT_REQUESTS={self.max_concurrent_requests}; raise the first, or lower the second"
            )
        return contradictions


def _in_brackets(name: str) -> str:
    try:
        return f"[{name}]" if ip_address(name).version == 6 else name
    except ValueError:
        return name


def _variable(name: str) -> str:
    return f"COVIDCT_{name.upper()}"


def comma_separated(setting: str) -> tuple[str, ...]:
    """Split a setting that lists values between commas."""
    return tuple(part for part in (piece.strip() for piece in setting.split(",")) if part)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
