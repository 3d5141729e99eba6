"""The model file: one TorchScript archive with its card inside, and the manifest that pins it.

This is the only file that names `torch.jit`, which is deprecated upstream; docs/decisions.md has the way out.
"""

import hashlib
import io
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from service.errors import ModelFileError
from service.files import write_atomically
from service.image import Slice

SCHEMA_VERSION: Final = 1
MANIFEST_NAME: Final = "metrics.json"
_CARD_NAME: Final = "card.json"

Network: TypeAlias = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""uint8 (N, 1, S, S) -> probability of the positive class (N,), out-of-distribution score (N,), heatmap (N, h, w)."""

Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
"""The number format that the network computes in."""

FilePrecision: TypeAlias = Literal["fp16", "int8"]
"""How a model file stores its weights. fp16 files compute in any precision but int8, int8 files in that alone."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Interval(_Record):
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class SplitFingerprint(_Record):
    """What identifies one split: SHA-256 over the sorted SHA-256 hashes of its files."""

    count: int
    sha256: str


class SelfCheck(_Record):
    """A synthetic slice, given by its seed, and what the network must answer to it."""

    seed: int
    probability: float = Field(ge=0, le=1)
    tolerance: dict[Precision, float]


class ModelCard(_Record):
    """What a user of the model file must know; it travels inside the file.

    Attributes:
        input_size: side of the square input in pixels.
        resize: how a slice gets to that size; the service refuses a rule that it does not know.
        labels: names of class 0 and class 1.
        positive_label: the class whose probability the network answers.
        threshold: at or above this probability the answer is the positive label.
        temperature: what the logits are divided by, inside the graph (Guo et al. 2017, arXiv 1706.04599).
        ood_threshold: above this out-of-distribution score the image does not look like a chest CT slice.
        precision: how the file stores its weights.
        test_metrics: figures on the test split, with intervals.
    """

    schema_version: Literal[1]
    name: str
    version: str
    architecture: str
    input_size: int = Field(gt=0)
    resize: Literal["bilinear-antialias-stretch"]
    labels: tuple[str, str]
    positive_label: str
    threshold: float = Field(ge=0, le=1)
    threshold_rule: str
    temperature: float = Field(gt=0)
    ood_threshold: float
    ood_rule: str
    precision: FilePrecision
    self_check: SelfCheck
    training_config: dict[str, JsonValue]
    data: dict[str, SplitFingerprint]
    git_commit: str
    libraries: dict[str, str]
    test_metrics: dict[str, Interval]
    intended_use: str
    limits: str


class ManifestFile(_Record):
    """One model file of the manifest."""

    name: str
    precision: FilePrecision
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class Manifest(BaseModel):
    """The part of metrics.json that pins the model files; the rest of it is for people.

    Attributes:
        probability_shares: share of the test split's probabilities at or below 0.1, 0.2, ... 1.0: what those answered
            in service are compared with. Empty where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1]
    files: tuple[ManifestFile, ...] = Field(min_length=1)
    probability_shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file, read and verified.

    Attributes:
        network: ready to be called on the device and in the precision it was loaded for.
        card: the card inside the file.
        sha256: hash of the whole file, hexadecimal.
    """

    network: Network
    card: ModelCard
    sha256: str


def save_model(module: torch.nn.Module, card: ModelCard, path: Path) -> ManifestFile:
    """Write `module` as one TorchScript archive with `card` inside; the file appears whole or not at all.

    Args:
        module: scriptable, in evaluation mode; its forward is a `Network`.
        card: its card.
        path: the file to write; replaced if it exists.

    Returns:
        The file's row of the manifest.
    """
    with _deprecation_known():
        scripted = torch.jit.script(module)
        # into memory first: an archive written to a path carries that path's name, and its hash would vary with it
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer, _extra_files={_CARD_NAME: card.model_dump_json()})
    data = buffer.getvalue()
    write_atomically(path, lambda temporary: temporary.write_bytes(data))
    return ManifestFile(name=path.name, precision=card.precision, sha256=_sha256(data), bytes=len(data))


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a models folder.

    Raises:
        ModelFileError: missing, not JSON, or of another schema.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"{path}: can't read the manifest: {error.strerror}") from error
    except ValidationError as error:
        raise ModelFileError(f"{path}: not a manifest of schema_version {SCHEMA_VERSION}: {_first(error)}") from error


def load_model(path: Path, device: torch.device, precision: Precision, sha256: str | None = None) -> Artifact:
    """Read a model file once, verify it, and make its network ready to be called.

    TorchScript archives can run operators of their own at load: open only files that you trust, which is what the
    hash is for.

    Args:
        path: the archive, on a local disk.
        device: where the network computes.
        precision: what it computes in: `int8` for an int8 file, anything else for an fp16 file.
        sha256: the hash the file must have, hexadecimal; None accepts any.

    Raises:
        ModelFileError: missing, corrupt, of another hash, schema or precision, or not loadable; one line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: can't read the model file: {error.strerror}") from error
    found = _sha256(data)
    if sha256 is not None and found != sha256:
        raise ModelFileError(f"{path}: SHA-256 is {found}, the manifest says {sha256}: not the file that was released")
    extra = {_CARD_NAME: ""}
    if precision == "int8":
        _hear_out_int8()
    try:
        with _deprecation_known():
            module = torch.jit.load(io.BytesIO(data), map_location=device, _extra_files=extra)  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises several kinds for a damaged archive
        raise ModelFileError(f"{path}: not a readable TorchScript archive: {_line(error)}") from error
    card = _parse_card(extra[_CARD_NAME], path)
    if (card.precision == "int8") != (precision == "int8"):
        raise ModelFileError(f"{path}: its card says {card.precision}; it can't compute in {precision}")
    return Artifact(network=_ready(module, card, precision), card=card, sha256=found)


def load_on_cpu(folder: Path, file: ManifestFile) -> Artifact:
    """A file of a folder's manifest on any CPU: fp16 weights in fp32, int8 in int8.

    Raises:
        ModelFileError: as `load_model`.
    """
    precision: Precision = "int8" if file.precision == "int8" else "fp32"
    return load_model(folder / file.name, torch.device("cpu"), precision, file.sha256)


def synthetic_slice(seed: int, size: int) -> Slice:
    """A smooth random slice that is the same on every machine: 8 x 8 random grey values, enlarged.

    `random.Random.random` is the one generator whose sequence Python promises to keep.

    Returns:
        uint8 (1, size, size).
    """
    generator = random.Random(seed)
    coarse = np.array([int(generator.random() * 256) for _ in range(64)], dtype=np.uint8).reshape(8, 8)
    enlarged = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.array(enlarged, dtype=np.uint8)[np.newaxis]


def _parse_card(text: str | bytes, path: Path) -> ModelCard:
    if not text:
        raise ModelFileError(f"{path}: no {_CARD_NAME} inside: not a model file of this project")
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise ModelFileError(f"{path}: its card is not of schema_version {SCHEMA_VERSION}: {_first(error)}") from error


_DTYPES: Final[dict[Precision, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _ready(module: Any, card: ModelCard, precision: Precision) -> Network:
    """Cast, freeze (which folds batch norms into the convolutions) and lay out for the processor's convolutions."""
    module.eval()
    if card.precision != "int8":
        module = module.to(dtype=_DTYPES[precision], memory_format=torch.channels_last)
    with _deprecation_known():
        return cast(Network, torch.jit.freeze(module))


def _hear_out_int8() -> None:
    """Let torch say here, and once, that int8 tensors are deprecated; from inside a model it prints that to stderr."""
    with _deprecation_known():
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)


@contextmanager
def _deprecation_known() -> Iterator[None]:
    """Keep TorchScript's deprecation out of every operator's log; it is ours to act on, see docs/decisions.md."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*(torch\.jit\..*deprecated|quantized tensor creation)")
        yield


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _first(error: ValidationError) -> str:
    """The first complaint of a validation, with what was found."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"])) or "document"
    return f"{where}: {problem['msg']} (found {str(problem['input'])[:80]!r})"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
