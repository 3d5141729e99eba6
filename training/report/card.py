"""Model card of the report's networks."""

from typing import Final

import torch

from service.model.card import SCHEMA_VERSION, Calibration, ModelCard, SelfCheck
from service.model.file import synthetic_slice
from training.data.covid_ct import LABELS
from training.release.export import INTENDED_USE, NAME, SELF_CHECK_SEED, SELF_CHECK_TOLERANCE
from training.release.run_record import NOT_LEARNED
from training.report.network import Deployable
from training.report.scores import Evaluation
from training.report_recipe import THRESHOLD, Architecture, ReportRecipe
from training.run.record import Provenance

_THRESHOLD_RULE: Final = "fixed at 0.5, as in the report"

_LIMITS: Final = (
    "Trained on a few hundred slices cut out of papers, with both classes from different sources and file formats, so "
    "part of the difference that it learned is not disease. NonCOVID holds other diseases and healthy lungs together. "
    "Never tested on another hospital's data; expect it to fail there. One slice, not a scan; no clinical data."
)


def make_card(
    deployable: Deployable, recipe: ReportRecipe, version: str, evaluation: Evaluation, provenance: Provenance
) -> ModelCard:
    """Build the card of a network of the report, in evaluation mode and in fp32.

    Args:
        deployable: network of the file.
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
        test_metrics={str(name): figure for name, figure in evaluation.splits["test"].figures.items()},
        intended_use=INTENDED_USE,
        limits=_LIMITS if evaluation.learned else f"{NOT_LEARNED.format(reason=evaluation.reason)} {_LIMITS}",
    )


def architecture_of(architecture: Architecture) -> str:
    """Describe the report's network, torchvision's name first."""
    return f"{architecture} (VGG classifier, two outputs)"


def _self_check(deployable: Deployable, size: int) -> float:
    device = next(deployable.parameters()).device
    batch = torch.from_numpy(synthetic_slice(SELF_CHECK_SEED, size))[None].to(device)
    with torch.inference_mode():
        return float(deployable(batch)["probability"].item())
