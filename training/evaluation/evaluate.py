"""The evaluation of a network: what validation chooses, then everything that is measured on test."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from service.imaging.decode import Slice
from service.model.file import Network
from training.data.batches import plain_batches
from training.data.covid_ct import CovidCt, Split
from training.data.reference import Reference
from training.evaluation.calibration import Calibration, calibration_of
from training.evaluation.heatmap_check import OcclusionCheck, check_heatmap
from training.evaluation.out_of_distribution import Gate, choose_gate, generated_images, score_images
from training.evaluation.scores import Figures, figures_of
from training.evaluation.shortcut_audit import Audit, audit_of
from training.evaluation.thresholds import OperatingPoint, Threshold, choose_threshold, operating_points
from training.network.deployable import Deployable
from training.recipe import Recipe, ThresholdRule
from training.run.progress import progress


@dataclass(frozen=True, slots=True)
class Predictions:
    """A network's answers to a split: probability of COVID and out-of-distribution score, float32 (N,) each."""

    probabilities: torch.Tensor
    ood_scores: torch.Tensor


@dataclass(frozen=True, slots=True)
class Results:
    """All that is known of a network once it is evaluated; by split, it is of the reference, by its name, and `test`.

    Attributes:
        reference: what temperature and thresholds were chosen on.
        chosen_on: its probabilities, float32 (N,).
        predictions: the network's own answers to `val` and `test`.
    """

    reference: Reference
    chosen_on: torch.Tensor
    predictions: dict[str, Predictions]
    figures: dict[str, Figures]
    threshold: Threshold
    operating_points: dict[ThresholdRule, OperatingPoint]
    calibration: dict[str, Calibration]
    audit: Audit
    gate: Gate
    heatmap: OcclusionCheck


def evaluate(
    deployable: Deployable, data: CovidCt, recipe: Recipe, others: Mapping[str, list[Slice]], reference: Reference
) -> Results:
    """Choose the thresholds on the reference, then look at test once: as it is, altered, and covered.

    Args:
        deployable: the network as it will be exported.
        data: the splits.
        recipe: says which rule chooses the threshold.
        others: images of no split by kind, that the gate is tried on beside the generated ones.
        reference: what the thresholds are chosen on; where it is validation, the deployable answers it anew.
    """
    device = next(deployable.parameters()).device
    size, seed = recipe.input_size, recipe.seed
    predictions: dict[str, Predictions] = {
        split.name: predict(deployable, split, size, device) for split in (data.val, data.test)
    }
    if reference.name == "val":
        chosen_on = predictions["val"].probabilities
    else:
        chosen_on = torch.softmax(reference.logits / deployable.temperature, dim=1)[:, 1].contiguous()
    answers: dict[str, tuple[torch.Tensor, torch.Tensor]] = {
        reference.name: (chosen_on, reference.split.labels),
        "test": (predictions["test"].probabilities, data.test.labels),
    }
    threshold = choose_threshold(*answers[reference.name], recipe.threshold_rule, reference.name)
    figures = {name: figures_of(*answer, threshold.value, seed) for name, answer in answers.items()}
    images = {**others, **generated_images(seed)}
    return Results(
        reference=reference,
        chosen_on=chosen_on,
        predictions=predictions,
        figures=figures,
        threshold=threshold,
        operating_points=operating_points(reference.name, answers, seed),
        calibration={name: calibration_of(*answer, deployable.temperature) for name, answer in answers.items()},
        audit=audit_of(
            data,
            figures["test"],
            lambda split: predict(deployable, split, size, device).probabilities,
            predictions["test"].probabilities,
            seed,
        ),
        gate=choose_gate(
            {name: each.ood_scores for name, each in predictions.items()},
            score_images(deployable, images, size, device),
        ),
        heatmap=check_heatmap(deployable, data.test, threshold.value, size, device, seed),
    )


def predict(network: Network, split: Split, input_size: int, device: torch.device) -> Predictions:
    """Answers of a network, in Python or from a model file, to a split as the service sees its slices."""
    probabilities, scores = [], []
    batches = plain_batches(split, input_size)
    with torch.inference_mode():
        for batch in progress(batches, f"evaluating {split.name}", "batch"):
            probability, score, _ = network(batch.images.to(device))
            probabilities.append(probability.cpu())
            scores.append(score.cpu())
    return Predictions(torch.cat(probabilities), torch.cat(scores))
