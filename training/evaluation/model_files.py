"""Scores of model files on sets of slices, as the service would answer them, and comparison of two models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.card import Interval
from service.model.file import LoadedModel
from training.data.batches import in_batches, plain_inputs
from training.data.covid_ct import Split
from training.errors import TrainingError
from training.evaluation.scores import Scores, bootstrap_weights, interval, score, weighted_auc
from training.run.progress import progress
from training.run.record import Record


@dataclass(frozen=True, slots=True)
class EvaluatedSet:
    """Slices at the size of their files; `groups` has the patient of each, None where patients are not known."""

    split: Split
    groups: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class FileAnswers:
    """Answers of a model file to N slices: probability, float64 (N,), and whether a check refuses it, bool (N,)."""

    probability: NDArray[np.float64]
    is_refused: NDArray[np.bool_]


class SetScores(Record):
    """Scores of one model file on one set.

    Attributes:
        refused: number of slices that a check refuses.
        scores: of all slices.
        answered: of those that no check refuses; None if none is refused, or one class is left.
    """

    refused: int
    scores: Scores
    answered: Scores | None


def answer_set(model: LoadedModel, evaluated: EvaluatedSet) -> FileAnswers:
    """Ask a model file about the slices of a set."""
    card, split = model.card, evaluated.split
    probabilities, refusals = [], []
    with torch.inference_mode():
        images = plain_inputs(split, card.input_size)
        for batch in progress(in_batches(images), f"evaluating {split.name}", "batch"):
            outputs = model.network(batch)
            probabilities.append(outputs["probability"].double().numpy())
            scores = [outputs[name] > threshold for name, threshold in card.checks.items()]
            refused = torch.stack(scores).any(0) if scores else torch.zeros(len(batch), dtype=torch.bool)
            refusals.append(refused.numpy())
    return FileAnswers(np.concatenate(probabilities), np.concatenate(refusals))


def score_set(answers: FileAnswers, evaluated: EvaluatedSet, threshold: float) -> SetScores:
    """Score the answers to a set at a threshold.

    Raises:
        TrainingError: the set has one class.
    """
    labels = evaluated.split.labels.numpy()
    if len(set(labels.tolist())) < 2:
        raise TrainingError(f"{evaluated.split.name}: all slices are of one class, so there is nothing to compare")
    kept = ~answers.is_refused
    answered = None
    if 0 < labels[kept].sum() < kept.sum() < len(labels):
        groups = None if evaluated.groups is None else np.asarray(evaluated.groups)[kept].tolist()
        answered = score(answers.probability[kept], labels[kept], threshold, 0, groups)
    scores = score(answers.probability, labels, threshold, 0, evaluated.groups)
    return SetScores(refused=int((~kept).sum()), scores=scores, answered=answered)


def difference_of_auc(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    labels: NDArray[np.int64],
    patients: Sequence[str] | None = None,
) -> Interval:
    """Compute the AUC of `first` minus that of `second`, with a 95 % interval.

    The bootstrap resamples patients, or slices, within classes and scores both on the same resamples (Efron &
    Tibshirani 1993, chapter 16).

    Args:
        first, second: (seeds, N) scores; the mean AUC over seeds is compared.
        labels: (N,), 0 or 1.
        patients: (N,); None takes each slice as a patient.
    """
    weights = bootstrap_weights(labels, 0, patients)
    means = [np.mean([weighted_auc(row, labels, weights) for row in scores], axis=0) for scores in (first, second)]
    return interval(means[0] - means[1])
