"""Writing of a model file that the service loads."""

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from service.model.card import SCHEMA_VERSION, FilePrecision, ManifestFile, ModelCard, Precision, SelfCheck
from service.model.file import model_bytes, synthetic_slice
from training.data.covid_ct import LABELS
from training.run.atomic_write import write_atomically
from training.run.provenance import Provenance

NAME: Final = "covid-ct"

_SELF_CHECK_SEED: Final = 20200330
"""Any number would do; this is the date of the data set's paper."""

_SELF_CHECK_TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 1e-1}
"""Absolute difference of probability that rounding explains: relative precision of the format, over 20 layers."""

_INTENDED_USE: Final = (
    "Research on classifying single axial chest CT slices as COVID-19 or not, and teaching. Not a medical device: not "
    "for diagnosis, triage or any decision about a patient."
)


def common_fields(
    network: nn.Module, version: str, input_size: int, precision: FilePrecision, provenance: Provenance
) -> dict[str, Any]:
    """Return the fields of a card that both recipes fill in the same way; the network is in fp32."""
    device = next(network.parameters()).device
    batch = torch.from_numpy(synthetic_slice(_SELF_CHECK_SEED, input_size))[None].to(device)
    with torch.inference_mode():
        probability = float(network(batch)["probability"].item())
    return {
        "schema_version": SCHEMA_VERSION,
        "name": NAME,
        "version": version,
        "input_size": input_size,
        "resize": "bilinear-antialias-stretch",
        "labels": LABELS,
        "positive_label": LABELS[1],
        "precision": precision,
        "self_check": SelfCheck(seed=_SELF_CHECK_SEED, probability=probability, tolerance=_SELF_CHECK_TOLERANCE),
        "training_config": provenance.config,
        "data": provenance.data,
        "git_commit": provenance.git_commit,
        "libraries": provenance.versions,
        "intended_use": _INTENDED_USE,
    }


def export(network: nn.Module, card: ModelCard, folder: Path) -> ManifestFile:
    """Write the model file; with precision fp16, `network` is in fp16 afterwards.

    Version and hash are part of its name, so that no file is ever overwritten by another one.
    """
    data = model_bytes(network.half() if card.precision == "fp16" else network, card)
    name = f"{card.name}-{card.architecture.split()[0]}-{card.version}-{sha256(data).hexdigest()[:8]}"
    file = ManifestFile.describe(f"{name}.{card.precision}.pt", card.precision, data)
    write_atomically(folder / file.name, lambda file: file.write(data))
    return file
