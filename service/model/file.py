"""The model file: one TorchScript archive with its card inside, written and read.

This is the only file that uses `torch.jit`, which is deprecated upstream (docs/decisions.md, 1).
"""

import hashlib
import io
import random
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError

from service.errors import ModelFileError
from service.imaging.decode import Slice
from service.model.card import MANIFEST_NAME, SCHEMA_VERSION, Manifest, ManifestFile, ModelCard, Precision
from service.model.hardware import int8_packed_by_onednn
from service.regular_file import read_regular_file

_CARD_NAME: Final = "card.json"

_MAX_MANIFEST_BYTES: Final = 16 * 1024**2
_MAX_MODEL_BYTES: Final = 4 * 1024**3
_DEBUG_SUFFIX: Final = ".debug_pkl"

_FINDER: Final = ("look", "check")
"""Methods of a network that finds lungs: what its first part sees, and the scores of the checks that follow from it."""

Network: TypeAlias = Callable[[torch.Tensor], dict[str, torch.Tensor]]
"""uint8 (N, 1, S, S) -> float tensors by name, all maps over the whole slice:

- `probability` (N,): of the positive class, calibrated, 0 to 1.
- `heatmap` (N, h, w): probability of lesion inside the lungs, 0 to 1. A network that does not find lungs returns
  its activity at each position.
- one score (N,) for each check of the card, 0 to 1: how likely the image must be refused for this reason.

And from a network that finds lungs:

- `lungs` (N, h, w): probability of lung, 0 to 1.
- `lung_involvement` (N, 3): share that is lesion of both lungs, of the patient's left lung, and of the right one.
- `lung_fraction` (N,): share of the image that is lung.
"""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model file, read and verified.

    Attributes:
        network: ready to be called on the device and in the precision it was loaded for.
        card: the card inside the file.
        sha256: hash of the whole file, hexadecimal.
        lung_finder: computes the scores of the checks only, in less time; None if the file has none.
    """

    network: Network
    card: ModelCard
    sha256: str
    lung_finder: Network | None = None


def model_bytes(module: torch.nn.Module, card: ModelCard) -> bytes:
    """Build the content of a model file: one TorchScript archive of `module` with `card` inside.

    Args:
        module: scriptable, in evaluation mode; its forward is a `Network`.
        card: its card.
    """
    with without_deprecation_warnings():
        scripted = torch.jit.script(module)
        # into memory: an archive written to a path contains that path's name, and its hash would vary with it
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer, _extra_files={_CARD_NAME: card.model_dump_json()})
    # deflating saves a quarter of int8 weights; of fp16 weights a twelfth, not worth a later first answer
    return _repack(buffer, zipfile.ZIP_DEFLATED if card.precision == "int8" else zipfile.ZIP_STORED)


def _repack(archive: io.BytesIO, compression: int) -> bytes:
    """Write a TorchScript archive again without its debug entries, which have the paths of this machine's sources.

    torch reads it with any compression. Errors of its operators then quote the serialised code alone.
    """
    repacked = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(repacked, "w") as target:
        for member in source.infolist():
            if not member.filename.endswith(_DEBUG_SUFFIX):
                target.writestr(zipfile.ZipInfo(member.filename), source.read(member), compression)
    return repacked.getvalue()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a models folder.

    Raises:
        ModelFileError: missing, not JSON, or of another schema.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(read_regular_file(path, _MAX_MANIFEST_BYTES))
    except OSError as error:
        raise ModelFileError(f"{path}: can't read the manifest: {error.strerror}") from error
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("files",) and error.errors()[0]["type"] == "too_short":
            raise ModelFileError(
                f"{path}: it names no model file, because training wrote none: the network learned nothing"
            ) from error
        raise ModelFileError(f"{path}: not a manifest of schema_version {SCHEMA_VERSION}: {_first(error)}") from error


def load_model(path: Path, device: torch.device, precision: Precision, sha256: str | None = None) -> LoadedModel:
    """Read a model file once, verify it, and make its network ready to be called.

    TorchScript archives can run operators at load: open only files that you trust, and pass their hash.

    Args:
        path: the archive, on a local disk.
        device: where the network computes.
        precision: compute precision: `int8` for an int8 file, anything else for an fp16 file.
        sha256: the hash the file must have, hexadecimal; None accepts any.

    Raises:
        ModelFileError: missing, corrupt, of another hash, schema or precision, or not loadable; one line.
    """
    module, card, found_sha256 = _read_archive(path, device, precision, sha256)
    ready = _ready(module, card, precision)
    return LoadedModel(network=ready, card=card, sha256=found_sha256, lung_finder=_lung_finder(ready))


def _read_archive(
    path: Path, device: torch.device, precision: Precision, sha256: str | None
) -> tuple[Any, ModelCard, str]:
    """Read module, card and hash; the file's bytes are freed before the weights are cast."""
    try:
        data = read_regular_file(path, _MAX_MODEL_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path}: can't read the model file: {error.strerror}") from error
    found_sha256 = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found_sha256 != sha256:
        raise ModelFileError(f"{path}: SHA-256 is {found_sha256}, the manifest says {sha256}: not the released file")
    extra = {_CARD_NAME: ""}
    if precision == "int8":
        _emit_int8_warning_once()
    try:
        with without_deprecation_warnings(), int8_packed_by_onednn():
            module = torch.jit.load(io.BytesIO(data), map_location=device, _extra_files=extra)  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises several kinds for a damaged archive
        raise ModelFileError(f"{path}: not a readable TorchScript archive: {_line(error)}") from error
    card = _parse_card(extra[_CARD_NAME], path)
    if (card.precision == "int8") != (precision == "int8"):
        raise ModelFileError(f"{path}: its card says {card.precision}; it can't compute in {precision}")
    return module, card, found_sha256


def load_on_cpu(folder: Path, file: ManifestFile) -> LoadedModel:
    """Load a file of a manifest on any CPU: fp16 weights in fp32, int8 weights in int8.

    Raises:
        ModelFileError: as `load_model`.
    """
    precision: Precision = "int8" if file.precision == "int8" else "fp32"
    return load_model(folder / file.name, torch.device("cpu"), precision, file.sha256)


def synthetic_slice(seed: int, size: int) -> Slice:
    """Draw a smooth random slice that is the same on every machine: 8 x 8 random grey values, enlarged.

    `random.Random.random` is the only generator whose sequence Python guarantees.

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


DTYPES: Final[dict[Precision, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _ready(module: Any, card: ModelCard, precision: Precision) -> Any:
    """Cast, freeze (which folds batch norms into the convolutions) and lay out for the processor's convolutions."""
    module.eval()
    if card.precision != "int8":
        module = module.to(dtype=DTYPES[precision], memory_format=torch.channels_last)
    kept = [name for name in _FINDER if hasattr(module, name)]
    with without_deprecation_warnings():
        return torch.jit.freeze(module, preserved_attrs=kept)


def _lung_finder(module: Any) -> Network | None:
    if not all(hasattr(module, name) for name in _FINDER):
        return None

    def find(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        _, _, lung, kind, flat = module.look(slices)
        return cast(dict[str, torch.Tensor], module.check(lung, kind, flat))

    return find


def _emit_int8_warning_once() -> None:
    """Provoke torch's warning about int8 tensors here, where it is ignored; a model would print it to stderr."""
    with without_deprecation_warnings():
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)


@contextmanager
def without_deprecation_warnings() -> Iterator[None]:
    """Keep TorchScript's deprecation out of operators' logs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*(torch\.jit\..*deprecated|quantized tensor creation)")
        yield


def _first(error: ValidationError) -> str:
    """Format the first validation error, with the value found."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"])) or "document"
    return f"{where}: {problem['msg']} (found {str(problem['input'])[:80]!r})"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
