"""Predictions of model files for sets of slices, like in the service, and their scores."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.file import LoadedModel
from training.data.covid_ct import Split, in_batches, plain_inputs
from training.errors import TrainingError
from training.evaluation.scores import Scores, score
from training.run.progress import progress
from training.run.record import Record


class SetScores(Record):
    """Scores of one model file on one set.

    Attributes:
        refused: number of refused slices.
        scores: of all slices.
        answered: of the slices that are not refused; None if none is refused, or one class is left.
    """

    refused: int
    scores: Scores
    answered: Scores | None


@dataclass(frozen=True, slots=True)
class EvaluatedSet:
    """N slices with the predictions of one model file and their scores.

    Attributes:
        split: the slices.
        probability: float64 (N,).
        is_refused: bool (N,), whether a check refuses the slice.
        scores: at the threshold of the model.
    """

    split: Split
    probability: NDArray[np.float64]
    is_refused: NDArray[np.bool_]
    scores: SetScores


def evaluate_set(model: LoadedModel, split: Split) -> EvaluatedSet:
    """Run a model file on a set, and score its predictions."""
    if len(split.labels.unique()) < 2:
        raise TrainingError(f"{split.name}: all slices are of one class, so there is nothing to compare")
    card = model.card
    probabilities, refusals = [], []
    with torch.inference_mode():
        images = plain_inputs(split, card.input_size)
        for batch in progress(in_batches(images), f"evaluating {split.name}", "batch"):
            outputs = model.network(batch)
            probabilities.append(outputs["probability"].double().numpy())
            scores = [outputs[name] > threshold for name, threshold in card.checks.items()]
            refused = torch.stack(scores).any(0) if scores else torch.zeros(len(batch), dtype=torch.bool)
            refusals.append(refused.numpy())
    probability, is_refused = np.concatenate(probabilities), np.concatenate(refusals)
    return EvaluatedSet(split, probability, is_refused, _score(split, probability, is_refused, card.threshold))


def _score(
    split: Split, probability: NDArray[np.float64], is_refused: NDArray[np.bool_], threshold: float
) -> SetScores:
    labels, kept = split.labels.numpy(), ~is_refused
    answered = None
    if 0 < labels[kept].sum() < kept.sum() < len(labels):
        patients = None if split.patients is None else np.asarray(split.patients)[kept].tolist()
        answered = score(probability[kept], labels[kept], threshold, 0, patients)
    scores = score(probability, labels, threshold, 0, split.patients)
    return SetScores(refused=int(is_refused.sum()), scores=scores, answered=answered)
