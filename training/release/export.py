"""From a trained network to the model file that the service loads."""

from hashlib import sha256
from pathlib import Path
from typing import Final

import torch
from torch import nn

from service.model.card import (
    SCHEMA_VERSION,
    Calibration,
    ManifestFile,
    ModelCard,
    Precision,
    SelfCheck,
)
from service.model.file import model_bytes, synthetic_slice
from training.data.covid_ct import LABELS
from training.evaluation.report_scores import Evaluation
from training.network.deployable import Deployable
from training.report_recipe import THRESHOLD, Architecture, ReportRecipe
from training.run.atomic_write import write_atomically
from training.run.record import Provenance

NAME: Final = "covid-ct"
SELF_CHECK_SEED: Final = 20200330
"""Any number would do; this is the date of the data set's paper."""

SELF_CHECK_TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 1e-1}
"""Absolute difference of probability that rounding explains: relative precision of the format, over 20 layers."""

_THRESHOLD_RULE: Final = "fixed at 0.5, as in the report"

INTENDED_USE: Final = (
    "Research on classifying single axial chest CT slices as COVID-19 or not, and teaching. Not a medical device: not "
    "for diagnosis, triage or any decision about a patient."
)
LIMITS: Final = (
    "Trained on a few hundred slices cut out of papers, with both classes from different sources and file formats, so "
    "part of what tells them apart is not disease. NonCOVID holds other diseases and healthy lungs together. Never "
    "tested on another hospital's data; expect it to fail there. One slice, not a scan; no clinical data."
)


def make_card(
    deployable: Deployable, recipe: ReportRecipe, version: str, evaluation: Evaluation, provenance: Provenance
) -> ModelCard:
    """Build the card of a network of the report, in evaluation mode and in fp32.

    Args:
        deployable: network that the file will hold.
        recipe: that it was trained with.
        version: of the model.
        evaluation: scores of this network.
        provenance: recipe, data and code.
    """
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name=NAME,
        version=version,
        architecture=architecture_of(recipe.architecture),
        input_size=recipe.input_size,
        resize="bilinear-antialias-stretch",
        labels=LABELS,
        positive_label=evaluation.positive_label,
        threshold=THRESHOLD,
        threshold_rule=_THRESHOLD_RULE,
        operating_points={"half": THRESHOLD},
        calibration=Calibration(slope=1.0, offset=0.0, rule="none, as in the report"),
        checks={},
        checks_rule="none: the network does not find lungs",
        precision="fp16",
        self_check=SelfCheck(
            seed=SELF_CHECK_SEED,
            probability=_self_check(deployable, recipe.input_size),
            tolerance=SELF_CHECK_TOLERANCE,
        ),
        training_config=provenance.config,
        data=provenance.data,
        git_commit=provenance.git_commit,
        libraries=provenance.versions,
        left_out_metrics={},
        test_metrics={str(name): each for name, each in evaluation.splits["test"].figures.items()},
        intended_use=INTENDED_USE,
        limits=LIMITS,
    )


def export(deployable: nn.Module, card: ModelCard, folder: Path) -> ManifestFile:
    """Write the model file; with precision fp16, `deployable` is in fp16 afterwards.

    Version and hash are part of its name, so that no file is ever overwritten by another one.
    """
    data = model_bytes(deployable.half() if card.precision == "fp16" else deployable, card)
    name = f"{card.name}-{card.architecture.split()[0]}-{card.version}-{sha256(data).hexdigest()[:8]}"
    file = ManifestFile.describe(f"{name}.{card.precision}.pt", card.precision, data)
    write_atomically(folder / file.name, lambda file: file.write(data))
    return file


def architecture_of(architecture: Architecture) -> str:
    """Describe the report's network, torchvision's name first."""
    return f"{architecture} (VGG classifier, two outputs)"


def _self_check(deployable: Deployable, size: int) -> float:
    device = next(deployable.parameters()).device
    batch = torch.from_numpy(synthetic_slice(SELF_CHECK_SEED, size))[None].to(device)
    with torch.inference_mode():
        return float(deployable(batch)["probability"].item())
