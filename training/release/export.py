"""From a trained network to the model file that the service loads."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import torch

from service.model.card import (
    SCHEMA_VERSION,
    Calibration,
    FilePrecision,
    Interval,
    ManifestFile,
    ModelCard,
    Precision,
    SelfCheck,
)
from service.model.file import model_bytes, synthetic_slice
from training.data.covid_ct import LABELS
from training.evaluation.evaluate import Evaluation
from training.evaluation.scores import ScoreName
from training.network.deployable import Deployable
from training.network.slice_network import SliceNetwork
from training.recipe import NetworkSettings
from training.run.atomic_write import write_atomically
from training.run.machine import Machine
from training.run.record import Provenance

NAME: Final = "covid-ct"
SELF_CHECK_SEED: Final = 20200330
"""Any number would do; this is the date of the data set's paper."""

SELF_CHECK_TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 1e-1}
"""Absolute difference of probability that rounding explains: relative precision of the format, over 20 layers."""

INTENDED_USE: Final = (
    "Research on classifying single axial chest CT slices as COVID-19 or not, and teaching. Not a medical device: not "
    "for diagnosis, triage or any decision about a patient."
)
LIMITS: Final = (
    "Trained on a few hundred slices cut out of papers, with both classes from different sources and file formats, so "
    "part of what tells them apart is not disease. NonCOVID holds other diseases and healthy lungs together. Slices of "
    "one patient are counted as independent in the intervals. Never tested on another hospital's data; expect it to "
    "fail there. One slice, not a scan; no clinical data."
)


def make_deployable(network: SliceNetwork, temperature: float, machine: Machine) -> Deployable:
    """Build the network as it will be stored: batch norms folded, weights rounded to fp16 and held in fp32.

    All figures are those of this network, so they are those of the file.

    Args:
        network: trained; it does not change.
        temperature: divides the logits.
        machine: of the network.
    """
    return Deployable(network, temperature).to(machine.device).eval().half().float()


def make_card(
    deployable: Deployable,
    settings: NetworkSettings,
    version: str,
    evaluation: Evaluation,
    provenance: Provenance,
    precision: FilePrecision,
    figures: Mapping[ScoreName, Interval],
) -> ModelCard:
    """Build the card of a network in evaluation mode.

    Args:
        deployable: network that the file will hold.
        settings: of the network.
        version: of the model.
        evaluation: source of thresholds and temperature.
        provenance: recipe, data and code.
        precision: number format of the file.
        figures: scores of this file's network on test.
    """
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name=NAME,
        version=version,
        architecture=architecture_of(settings),
        input_size=settings.input_size,
        resize="bilinear-antialias-stretch",
        labels=LABELS,
        positive_label=evaluation.positive_label,
        threshold=evaluation.threshold.value,
        threshold_rule=evaluation.threshold.rule,
        operating_points={rule: point.threshold.value for rule, point in evaluation.operating_points.items()},
        calibration=Calibration(
            slope=1 / evaluation.temperature,
            offset=0.0,
            rule="temperature, fitted to the answers that the threshold was chosen on (Guo et al. 2017)",
        ),
        checks={},
        checks_rule="none: the network does not find lungs",
        precision=precision,
        self_check=SelfCheck(
            seed=SELF_CHECK_SEED,
            probability=_self_check(deployable, settings.input_size),
            tolerance=SELF_CHECK_TOLERANCE,
        ),
        training_config=provenance.config,
        data=provenance.data,
        git_commit=provenance.git_commit,
        libraries=provenance.versions,
        left_out_metrics={},
        test_metrics={str(name): interval for name, interval in figures.items()},
        intended_use=INTENDED_USE,
        limits=LIMITS,
    )


def export(deployable: Deployable, card: ModelCard, folder: Path) -> ManifestFile:
    """Write the model file; with precision fp16, `deployable` is in fp16 afterwards."""
    path = folder / f"{card.name}-{card.architecture.split()[0]}.{card.precision}.pt"
    data = model_bytes(deployable.half() if card.precision == "fp16" else deployable, card)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))
    return ManifestFile(name=path.name, precision=card.precision, sha256=sha256(data).hexdigest(), bytes=len(data))


def architecture_of(settings: NetworkSettings) -> str:
    """Describe network and head, the network's name first."""
    if settings.head == "classifier":
        return f"{settings.architecture} (VGG classifier, two outputs)"
    activations = ", ".join(settings.head_layers)
    if settings.head == "covariance":
        seen = f"covariances of {settings.components} directions of activations {activations}"
    else:
        seen = f"average and RMS of activations {activations}"
    return f"{settings.architecture} ({seen}, one linear layer)"


def _self_check(deployable: Deployable, size: int) -> float:
    device = next(deployable.parameters()).device
    batch = torch.from_numpy(synthetic_slice(SELF_CHECK_SEED, size))[None].to(device)
    with torch.inference_mode():
        return float(deployable(batch)["probability"].item())
