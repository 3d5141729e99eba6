"""Writing of a model file that the service loads."""

from hashlib import sha256
from pathlib import Path
from typing import Final

from torch import nn

from service.model.card import ManifestFile, ModelCard, Precision
from service.model.file import model_bytes
from training.run.atomic_write import write_atomically

NAME: Final = "covid-ct"
SELF_CHECK_SEED: Final = 20200330
"""Any number would do; this is the date of the data set's paper."""

SELF_CHECK_TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 1e-1}
"""Absolute difference of probability that rounding explains: relative precision of the format, over 20 layers."""

INTENDED_USE: Final = (
    "Research on classifying single axial chest CT slices as COVID-19 or not, and teaching. Not a medical device: not "
    "for diagnosis, triage or any decision about a patient."
)


def export(network: nn.Module, card: ModelCard, folder: Path) -> ManifestFile:
    """Write the model file; with precision fp16, `network` is in fp16 afterwards.

    Version and hash are part of its name, so that no file is ever overwritten by another one.
    """
    data = model_bytes(network.half() if card.precision == "fp16" else network, card)
    name = f"{card.name}-{card.architecture.split()[0]}-{card.version}-{sha256(data).hexdigest()[:8]}"
    file = ManifestFile.describe(f"{name}.{card.precision}.pt", card.precision, data)
    write_atomically(folder / file.name, lambda file: file.write(data))
    return file
