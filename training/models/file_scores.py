"""Predictions of model files for sets of slices, like in the service, and their scores."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.card import ModelCard
from service.model.file import LoadedModel
from training.data.covid_ct import BATCH, Split, plain_inputs
from training.errors import TrainingError
from training.evaluation.scores import Floats, Scores, score
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
        refused: bool (N,), whether a check refuses the slice.
        scores: at the threshold of the model.
    """

    split: Split
    probability: Floats
    refused: NDArray[np.bool_]
    scores: SetScores


def predict_file(model: LoadedModel, images: torch.Tensor, title: str, batch: int = BATCH) -> dict[str, Floats]:
    """Run a model file on uint8 (N, 1, S, S) images: every output of one value an image by name, float64 (N,)."""
    parts: dict[str, list[Floats]] = defaultdict(list)
    with torch.inference_mode():
        for few in progress(torch.split(images, batch), title, "slice" if batch == 1 else "batch"):
            for name, values in model.network(few).items():
                if values.ndim == 1:
                    parts[name].append(values.double().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def find_refused(card: ModelCard, outputs: Mapping[str, Floats]) -> NDArray[np.bool_]:
    """Tell for each of N images whether a check of the card refuses it: bool (N,)."""
    refused = np.zeros(len(outputs["probability"]), np.bool_)
    for name, threshold in card.checks.items():
        refused |= outputs[name] > threshold
    return refused


def evaluate_set(model: LoadedModel, split: Split) -> EvaluatedSet:
    """Run a model file on a set, and score its predictions."""
    if len(set(split.labels.tolist())) < 2:
        raise TrainingError(f"{split.name}: all slices are of one class, so there is nothing to compare")
    card = model.card
    outputs = predict_file(model, plain_inputs(split, card.input_size), f"evaluating {split.name}")
    probability, refused = outputs["probability"], find_refused(card, outputs)
    return EvaluatedSet(split, probability, refused, _score(split, probability, refused, card.threshold))


def _score(split: Split, probability: Floats, refused: NDArray[np.bool_], threshold: float) -> SetScores:
    labels, kept = split.labels.numpy(), ~refused
    answered = None
    if 0 < labels[kept].sum() < kept.sum() < len(labels):
        patients = None if split.patients is None else np.asarray(split.patients)[kept].tolist()
        answered = score(probability[kept], labels[kept], threshold, 0, patients)
    scores = score(probability, labels, threshold, 0, split.patients)
    return SetScores(refused=int(refused.sum()), scores=scores, answered=answered)
