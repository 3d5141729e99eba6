"""Predictions of model files for sets of slices, like in the service, and their scores."""

from collections.abc import Sequence
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
class LabelledSet:
    """Slices at the size of their files.

    Attributes:
        name: of the set.
        split: N slices.
        patients: of each slice; None if they are unknown.
    """

    name: str
    split: Split
    patients: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class EvaluatedSet:
    """A set with the predictions of one model file and their scores.

    Attributes:
        labelled: the slices.
        probability: float64 (N,).
        is_refused: bool (N,), whether a check refuses the slice.
        scores: at the threshold of the model.
    """

    labelled: LabelledSet
    probability: NDArray[np.float64]
    is_refused: NDArray[np.bool_]
    scores: SetScores


def evaluate_set(model: LoadedModel, labelled: LabelledSet) -> EvaluatedSet:
    """Run a model file on a set, and score its predictions.

    Raises:
        TrainingError: the set has one class.
    """
    labels = labelled.split.labels.numpy()
    if len(set(labels.tolist())) < 2:
        raise TrainingError(f"{labelled.name}: all slices are of one class, so there is nothing to compare")
    card = model.card
    probabilities, refusals = [], []
    with torch.inference_mode():
        images = plain_inputs(labelled.split, card.input_size)
        for batch in progress(in_batches(images), f"evaluating {labelled.name}", "batch"):
            outputs = model.network(batch)
            probabilities.append(outputs["probability"].double().numpy())
            scores = [outputs[name] > threshold for name, threshold in card.checks.items()]
            refused = torch.stack(scores).any(0) if scores else torch.zeros(len(batch), dtype=torch.bool)
            refusals.append(refused.numpy())
    probability, is_refused = np.concatenate(probabilities), np.concatenate(refusals)
    return EvaluatedSet(labelled, probability, is_refused, _score(labelled, probability, is_refused, card.threshold))


def _score(
    labelled: LabelledSet, probability: NDArray[np.float64], is_refused: NDArray[np.bool_], threshold: float
) -> SetScores:
    labels, kept = labelled.split.labels.numpy(), ~is_refused
    answered = None
    if 0 < labels[kept].sum() < kept.sum() < len(labels):
        patients = None if labelled.patients is None else np.asarray(labelled.patients)[kept].tolist()
        answered = score(probability[kept], labels[kept], threshold, 0, patients)
    scores = score(probability, labels, threshold, 0, labelled.patients)
    return SetScores(refused=int(is_refused.sum()), scores=scores, answered=answered)
