"""Evaluation of a network: all predictions first, then figures that are functions of these predictions alone."""

from dataclasses import dataclass

import torch

from service.model.file import Network
from training.data.batches import in_batches, plain_inputs
from training.data.covid_ct import LABELS, CovidCt
from training.data.reference import Reference
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.calibration import Calibration, measure_calibration
from training.evaluation.heatmap_check import HeatmapCheck, check_heatmap, cover
from training.evaluation.scores import Scores, score
from training.evaluation.shortcut_audit import Audit, audit_shortcuts
from training.evaluation.thresholds import OperatingPoint, Threshold, choose_threshold, operating_points
from training.recipe import Recipe, ThresholdRule
from training.run.progress import progress
from training.run.record import Record


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers of a network to some images, on the CPU.

    Attributes:
        probabilities: of COVID, float32 (N,).
        heatmaps: evidence for COVID relative to the strongest, float32 (N, h, w).
    """

    probabilities: torch.Tensor
    heatmaps: torch.Tensor


@dataclass(frozen=True, slots=True)
class Answers:
    """All predictions that an evaluation is made from.

    Attributes:
        reference: slices on which temperature and threshold were chosen.
        reference_probabilities: of these slices, float32 (N,).
        temperature: divides the logits.
        threshold: chosen on the reference.
        test: of the network itself.
        altered: probabilities of test by alteration, float32 (N,) each.
        covered: probabilities of test with cells of the heat map covered: `top` and `random`, float32 (N,) each.
    """

    reference: Reference
    reference_probabilities: torch.Tensor
    temperature: float
    threshold: Threshold
    test: Predictions
    altered: dict[str, torch.Tensor]
    covered: dict[str, torch.Tensor]


class Evaluation(Record):
    """The figures of a network, part of metrics.json.

    `splits` and `calibration` are by split: the reference, under its name, and `test`.

    Attributes:
        probability_shares: share of test probabilities at or below 0.1, 0.2, ... 1.0.
    """

    probability_shares: tuple[float, ...]
    positive_label: str
    threshold: Threshold
    temperature: float
    splits: dict[str, Scores]
    operating_points: dict[ThresholdRule, OperatingPoint]
    calibration: dict[str, Calibration]
    audit: Audit
    heatmap: HeatmapCheck


def predict(network: Network, images: torch.Tensor, device: torch.device, title: str) -> Predictions:
    """Run a network, in Python or from a model file, on uint8 (N, 1, S, S) images."""
    answers = []
    with torch.inference_mode():
        for batch in progress(in_batches(images), title, "batch"):
            outputs = network(batch.to(device))
            answers.append((outputs["probability"].cpu(), outputs["heatmap"].cpu()))
    probabilities, heatmaps = zip(*answers, strict=True)
    return Predictions(torch.cat(probabilities), torch.cat(heatmaps))


def collect_answers(
    network: Network,
    temperature: float,
    data: CovidCt,
    recipe: Recipe,
    reference: Reference,
    device: torch.device,
) -> Answers:
    """Run the network once on each split and alteration; the threshold is chosen before test is used.

    Args:
        network: as it will be exported.
        temperature: that the network divides its logits by.
        data: the splits.
        recipe: for its input size, threshold rule and seed.
        reference: slices to choose the threshold on. If it is validation, the network itself answers it.
        device: of the network.
    """
    size, seed = recipe.network.input_size, recipe.seed

    def run(images: torch.Tensor, title: str) -> Predictions:
        return predict(network, images, device, f"evaluating {title}")

    if reference.name == "val":
        chosen_on = run(plain_inputs(data.val, size), "val").probabilities
    else:
        chosen_on = torch.softmax(reference.logits / temperature, dim=1)[:, 1].contiguous()
    threshold = choose_threshold(chosen_on, reference.split.labels, recipe.threshold_rule, reference.name)
    images = plain_inputs(data.test, size)
    test = run(images, "test")
    altered_images = {name: plain_inputs(altered(data.test, alter), size) for name, alter in ALTERATIONS.items()}
    covered_images = cover(images, test.heatmaps, test.probabilities >= threshold.value, seed)
    return Answers(
        reference=reference,
        reference_probabilities=chosen_on,
        temperature=temperature,
        threshold=threshold,
        test=test,
        altered={name: run(each, f"test, {name}").probabilities for name, each in altered_images.items()},
        covered={name: run(each, f"test, {name} cells covered").probabilities for name, each in covered_images.items()},
    )


def evaluate(answers: Answers, data: CovidCt, seed: int) -> Evaluation:
    """Compute all figures from the answers; `seed` is that of the intervals."""
    reference, threshold = answers.reference.name, answers.threshold
    scored: dict[str, tuple[torch.Tensor, torch.Tensor]] = {
        reference: (answers.reference_probabilities, answers.reference.split.labels),
        "test": (answers.test.probabilities, data.test.labels),
    }
    splits = {name: score(*each, threshold.value, seed) for name, each in scored.items()}
    return Evaluation(
        probability_shares=_shares(answers.test.probabilities),
        positive_label=LABELS[1],
        threshold=threshold,
        temperature=answers.temperature,
        splits=splits,
        operating_points=operating_points(reference, scored, seed),
        calibration={name: measure_calibration(*each, answers.temperature) for name, each in scored.items()},
        audit=audit_shortcuts(data, splits["test"], answers.test.probabilities, answers.altered, seed),
        heatmap=check_heatmap(answers.test.probabilities, answers.covered, data.test.labels, threshold.value),
    )


def _shares(probabilities: torch.Tensor) -> tuple[float, ...]:
    return tuple(round((probabilities <= tenth / 10).double().mean().item(), 4) for tenth in range(1, 11))
