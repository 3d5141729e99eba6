"""From a trained network to the model file that the service loads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from pydantic import JsonValue

from service.model.card import FilePrecision, Interval, ManifestFile, ModelCard, Precision, SelfCheck, SplitFingerprint
from service.model.file import load_on_cpu, model_bytes, synthetic_slice
from training.data.batches import Batch
from training.data.covid_ct import LABELS, Split
from training.evaluation.evaluate import Predictions, Results, predict
from training.evaluation.scores import FigureName
from training.network.deployable import Density, Deployable, contrast_of
from training.network.slice_network import SliceNetwork
from training.recipe import Recipe
from training.run.atomic_write import write_atomically
from training.run.record import git_commit, library_versions

NAME: Final = "covid-ct"


SELF_CHECK_SEED: Final = 20200330
"""Any number does; this is the day that the data set's paper appeared."""


SELF_CHECK_TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 1e-1}
"""Absolute difference of probability that rounding explains: relative precision of the format, over 20 layers."""


DENSITY_COMPONENTS: Final = 64


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


def make_deployable(
    network: SliceNetwork, temperature: float, train_features: torch.Tensor, train: Sequence[Batch]
) -> Deployable:
    """The network as it will be stored: batch norms folded, every weight rounded to fp16 and held in fp32.

    All figures are taken from this network, so they are those of the file.

    Args:
        network: trained; it stays as it is.
        temperature: what the logits are divided by.
        train_features: what the gate sees of the training slices, float32 (N, D), for the density.
        train: those slices, for their contrast.
    """
    density = Density(train_features.shape[1], min(DENSITY_COMPONENTS, len(train_features) - 2))
    density.fit(train_features)
    device = next(network.parameters()).device
    least_contrast = min(contrast_of(batch.images).min().item() for batch in train) / 2
    return Deployable(network, temperature, density, least_contrast).to(device).eval().half().float()


def predict_with_file(folder: Path, file: ManifestFile, split: Split) -> Predictions:
    """What a model file answers to a split, loaded as the service loads it."""
    cpu = torch.device("cpu")
    artifact = load_on_cpu(folder, file)
    return predict(artifact.network, split, artifact.card.input_size, cpu)


def make_card(
    deployable: Deployable,
    recipe: Recipe,
    version: str,
    results: Results,
    data: Mapping[str, SplitFingerprint],
    precision: FilePrecision,
    figures: Mapping[FigureName, Interval],
) -> ModelCard:
    """The card of a network in evaluation mode.

    Args:
        deployable: the network that the file will hold.
        recipe: how it was trained.
        version: of the model.
        results: of its evaluation; thresholds are taken from it.
        data: what it was trained on.
        precision: how the file stores its weights.
        figures: what this file's network reached on test.
    """
    return ModelCard(
        schema_version=1,
        name=NAME,
        version=version,
        architecture=architecture_of(recipe),
        input_size=recipe.input_size,
        resize="bilinear-antialias-stretch",
        labels=LABELS,
        positive_label=LABELS[1],
        threshold=results.threshold.value,
        threshold_rule=results.threshold.rule,
        temperature=deployable.temperature,
        ood_threshold=results.gate.threshold,
        ood_rule=results.gate.rule,
        precision=precision,
        self_check=SelfCheck(
            seed=SELF_CHECK_SEED, probability=_self_check(deployable, recipe.input_size), tolerance=SELF_CHECK_TOLERANCE
        ),
        training_config=config_of(recipe),
        data=dict(data),
        git_commit=git_commit(),
        libraries=library_versions(),
        test_metrics={str(name): interval for name, interval in figures.items()},
        intended_use=INTENDED_USE,
        limits=LIMITS,
    )


def export(deployable: Deployable, card: ModelCard, folder: Path) -> ManifestFile:
    """Write the model file; with fp16 weights `deployable` is in fp16 afterwards."""
    architecture = card.training_config["architecture"]
    data = model_bytes(deployable.half() if card.precision == "fp16" else deployable, card)
    file = ManifestFile.describe(f"{card.name}-{architecture}.{card.precision}.pt", card.precision, data)
    write_atomically(folder / file.name, lambda path: path.write_bytes(data))
    return file


def architecture_of(recipe: Recipe) -> str:
    """For people: network and head."""
    if recipe.head == "classifier":
        return f"{recipe.architecture} (VGG classifier, two outputs)"
    activations = ", ".join(recipe.pooled_layers)
    if recipe.head == "covariance":
        seen = f"covariances of {recipe.components} directions of activations {activations}"
    else:
        seen = f"average and RMS of activations {activations}"
    return f"{recipe.architecture} ({seen}, one linear layer)"


def config_of(recipe: Recipe) -> dict[str, JsonValue]:
    """The recipe as JSON."""
    config: dict[str, JsonValue] = recipe.model_dump(mode="json")
    return config


def _self_check(deployable: Deployable, size: int) -> float:
    device = next(deployable.parameters()).device
    batch = torch.from_numpy(synthetic_slice(SELF_CHECK_SEED, size))[None].to(device)
    with torch.inference_mode():
        return float(deployable(batch)[0].item())
